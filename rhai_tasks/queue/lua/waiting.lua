-- Functions about limits of how many tasks wait, for scripts that submit tasks.
--
-- Needs  connection/common, queue/lines

-- Ask in one command whether a key exists, and whether a circle has rules. `messages`: key of the circle's queue.
-- Returns both answers. A user who may not read the rules may not submit: a limit would be passed over.
local function exists_beside_rules(key, messages)
  local rules = messages .. '.rules'
  local both = redis.pcall('EXISTS', key, rules)
  if is_error(both) then
    redis.call('EXISTS', key) -- raises the error if it is about this key
    error('the user lacks the permission to read "' .. rules .. '", which says how many tasks may wait: grant EXISTS '
      .. 'and HGET of this key', 0)
  end
  local has_rules = both == 2 or both == 1 and redis.call('EXISTS', rules) == 1
  return both == 2 or both == 1 and not has_rules, has_rules
end

-- Return the caller that a task names. `first`, `last`: positions in ARGV of names and values of its fields.
local function caller_in(first, last)
  local caller = ''
  for n = first, last, 2 do
    caller = ARGV[n] == FIELD.callerId and ARGV[n + 1] or caller
  end
  return caller
end

-- Read how many tasks may wait, and find the sets of waiting tasks that tasks belong to which are to be submitted. They
-- are added to these sets before they are submitted: an id that is not submitted after all does no harm.
--
-- `native`: the native list; `messages`: key of the circle's queue; `details`: prefix of details keys; `ids`: of the
-- tasks; `callers`: the same by caller.
-- Returns a list of {key of the set, ids}; or, if more would wait than a limit allows, nil and {caller, how many of its
-- tasks may wait, 1}, without the 1: of the circle.
local function sets_of_waiting(native, messages, details, ids, callers)
  local sets = {}

  local function limit_of(scope)
    local readable, limit = pcall(cjson.decode, redis.call('HGET', messages .. '.rules', 'limit ' .. scope) or '{}')
    return readable and type(limit) == 'table' and tonumber(limit.waiting) or nil
  end

  -- Count the tasks that wait, those of foreign dispatchers included; not all, once they are more than `limit`.
  local function count_listed(limit)
    local count = redis.call('LLEN', native) + redis.call('LLEN', messages)
    local lines = redis.pcall('ZRANGE', keys_of_lines(messages).lines, 0, 1000) -- the server has others to serve
    for _, caller in ipairs(is_error(lines) and {} or lines) do
      if count > limit then
        break
      end
      count = count + redis.call('LLEN', line_of(messages, caller))
    end
    return count
  end

  -- Say whether the ids `more` may wait, too. Those that no longer wait are taken out of the set first, some at a time.
  local function has_room(key, more, limit, listed)
    local count = redis.call('SCARD', key)
    if count + #more > limit then
      for _, id in ipairs(redis.call('SRANDMEMBER', key, 200)) do
        local status = redis.pcall('HGET', details .. id, FIELD.status)
        local is_hidden = is_error(status) and not is_wrong_type(status) -- another user's
        if status ~= STATUS.pending and not is_hidden then
          count = count - redis.call('SREM', key, id)
        end
      end
    end
    sets[#sets + 1] = {key, more}
    return math.max(count, listed) + #more <= limit
  end

  local limit, each = limit_of('circle'), limit_of('callers')
  if limit and not has_room(messages .. '.waiting', ids, limit, count_listed(limit)) then
    return nil, {'', limit}
  end
  for caller, its_ids in pairs(callers) do
    limit = limit_of('caller ' .. caller) or each
    if limit and not has_room(messages .. '.waiting.' .. caller, its_ids, limit, 0) then
      return nil, {caller, limit, 1}
    end
  end
  return sets
end
