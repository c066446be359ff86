-- Functions that choose the tasks that may begin by the rules of their circle, and park the others.
--
-- Needs  connection/common, queue/keys, queue/messages, queue/rules, queue/lines, queue/buckets, queue/choose_by_turns

-- Choose elements of the lines and of the queue that may begin; those of the queue that may not are to be parked in
-- their callers' lines. Writes nothing that counts.
--
-- `queue`: as for `bodies_of`, and its keys rules, callers (hash of held message to caller, which is rebuilt if it is
-- lost), and buckets, hash of token buckets. `count`: how many elements to choose; `idle`: threads that
-- have nothing to do. `details`: prefix of details keys; `actor`: name of the actor that runs tasks.
-- Returns a plan: elements, bodies and callers of those that begin; blocks; parked, {caller, element, body, submission}
-- of those that do not; scanned, how many elements of the queue these are; taken, how many elements each line loses, by
-- caller; left, how many it keeps; buckets, of `token_buckets`; begun, {set of waiting tasks, task id}; wait,
-- milliseconds after which others may begin, 0: nothing waits; with turns also charges, by element.
-- `turns`: of `read_turns`, or nil: callers take none.
local function choose(queue, count, idle, time, details, actor, turns)
  local plan = {elements = {}, bodies = {}, callers = {}, blocks = {}, parked = {}, scanned = 0, taken = {}, left = {},
    submissions = {}, buckets = token_buckets(queue.buckets, time), begun = {}, wait = 0}
  local rules, buckets = read_rules(queue.rules), plan.buckets
  plan.blocks = blocks_of(rules)
  if rules['pause circle'] then
    plan.wait = 250
    return plan
  end

  -- Read the limits. The one of a caller's own counts, figure by figure, before the one of each caller.
  local none = {}
  local function limit_of(scope)
    local note = rules['limit ' .. scope]
    if not note then
      return none
    end
    local readable, limit = pcall(cjson.decode, note)
    return readable and type(limit) == 'table' and limit or none
  end
  local circle, each, limits = limit_of('circle'), limit_of('callers'), {}
  local no_rules = next(rules) == nil and {weight = 1}
  local function limits_of(caller)
    if no_rules then
      return no_rules
    elseif not limits[caller] then
      local own = limit_of('caller ' .. caller)
      limits[caller] = {
        is_paused = rules['pause caller ' .. caller] ~= nil,
        is_blocked = rules['block caller ' .. caller] ~= nil,
        concurrency = tonumber(own.concurrency or each.concurrency),
        rate = tonumber(own.rate or each.rate),
        burst = tonumber(own.rate and own.burst or each.burst),
        waiting = tonumber(own.waiting or each.waiting),
        weight = tonumber(own.weight or each.weight) or 1,
      }
    end
    return limits[caller]
  end

  -- Return the caller and the submission of an element of the queue; nil: it is a message of another actor.
  local function caller_of(element, body)
    if not body then
      return caller_of_task(details, element)
    end
    local task, carried = task_of(body, actor)
    if not task then
      return nil -- the worker says what is wrong with it
    end
    local caller = carried and (carried[FIELD.callerId] or carried[FIELD.publicKey])
    return type(caller) == 'string' and caller or (caller_of_task(details, task))
  end

  -- Count the messages that brokers hold, by caller: no counter could leak. A dead broker's count until recovered.
  local held, total
  local function count_held()
    local ids, missing = {}, {}
    held = {}
    for _, key in ipairs(acks_of(redis.call('ZRANGE', queue.leases, 0, -1), queue.acks, queue.name)) do
      for _, id in ipairs(redis.call('SMEMBERS', key)) do ids[#ids + 1] = id end
    end
    total = #ids
    if redis.call('HLEN', queue.callers) > 2 * total + 1000 then
      redis.call('DEL', queue.callers) -- most of these are held no more
    end
    local callers = turns and turns.callers_of(ids) or call_with_all('HMGET', queue.callers, ids)
    for i, id in ipairs(ids) do
      local caller = callers[i]
      if not caller then
        caller = caller_of(id, redis.call('HGET', queue.bodies, id) or '') or ''
        missing[#missing + 1], missing[#missing + 2] = id, caller
      end
      held[caller] = (held[caller] or 0) + 1
    end
    call_with_all('HSET', queue.callers, turns and {} or missing)
  end

  -- Read the token buckets of callers that have a rate, in one command.
  local function load_buckets(callers)
    local fields, its_limits = {}, {}
    for _, caller in ipairs(callers) do
      local limit = limits_of(caller)
      if limit.rate then
        fields[#fields + 1], its_limits[#its_limits + 1] = 'caller ' .. caller, limit
      end
    end
    buckets.load(fields, its_limits)
  end

  local function refuse(wait)
    plan.wait = plan.wait == 0 and wait or math.min(plan.wait, wait)
    return false
  end
  local function has_token(field, limit)
    local wait = limit.rate and buckets.wait(field, limit) or 0
    return wait == 0 or refuse(wait)
  end

  -- Say whether the circle's own limits let one more begin.
  local function circle_has_room()
    if circle == none then
      return true
    elseif circle.concurrency then
      if not held then count_held() end
      if total >= tonumber(circle.concurrency) then
        return refuse(100)
      end
    end
    return has_token('circle', circle)
  end

  local prefetched = {} -- by caller: how many of its tasks do not begin at once
  local function may_begin(caller)
    local limit = limits_of(caller)
    if limit.is_blocked then
      return true -- it ends at once
    elseif limit.is_paused then
      return refuse(250)
    end
    if limit.concurrency then
      if not held then count_held() end
      if (held[caller] or 0) >= limit.concurrency then
        return refuse(100)
      end
    end
    -- The rate is of beginnings: beside those that begin at once, as many are fetched as may begin in 20 ms.
    if limit.rate and (prefetched[caller] or 0) >= math.max(limit.rate * 0.02, 1) then
      return refuse(5)
    end
    return not limit.rate or has_token('caller ' .. caller, limit)
  end

  local function begin(element, body, caller)
    local n = #plan.elements + 1
    plan.elements[n], plan.bodies[n], plan.callers[n] = element, body, caller or ''
    local limit = caller and limits_of(caller)
    if circle.waiting or limit and limit.waiting then
      local task = body and task_of(body, actor) or element
      plan.begun[#plan.begun + 1] = circle.waiting and {queue.messages .. '.waiting', task}
      plan.begun[#plan.begun + 1] = limit and limit.waiting and {queue.messages .. '.waiting.' .. caller, task}
    end
    if limit and not limit.is_blocked then
      if circle.rate then
        buckets.spend('circle', circle)
      end
      if limit.rate then
        buckets.spend('caller ' .. caller, limit)
        prefetched[caller] = (prefetched[caller] or 0) + (n > idle and 1 or 0)
      end
    end
    if held then
      total = total + 1
      held[caller or ''] = (held[caller or ''] or 0) + 1
    end
  end

  local has_lines
  local function line_length(caller)
    if has_lines == nil then
      has_lines = redis.call('EXISTS', keys_of_lines(queue.messages).lines) == 1
    end
    if not plan.left[caller] then
      plan.left[caller] = has_lines and redis.call('LLEN', line_of(queue.messages, caller)) or 0
    end
    return plan.left[caller]
  end

  local function choose_of_line(caller)
    local elements, submissions = {}, {}
    local parked = redis.call('LRANGE', line_of(queue.messages, caller), 0, count - #plan.elements - 1)
    for i, one in ipairs(parked) do elements[i], submissions[i] = split_parked(one) end
    local bodies = bodies_of(elements, queue)
    plan.taken[caller] = plan.taken[caller] or 0
    for i, element in ipairs(elements) do
      if not (circle_has_room() and may_begin(caller)) then
        return
      end
      begin(element, bodies[i], caller)
      if not bodies[i] then
        plan.submissions[element] = submissions[i]
      end
      plan.taken[caller], plan.left[caller] = plan.taken[caller] + 1, plan.left[caller] - 1
    end
  end

  local function choose_of_lines()
    local callers = redis.call('ZRANGE', keys_of_lines(queue.messages).lines, 0, 99)
    load_buckets(callers)
    for _, caller in ipairs(callers) do
      if #plan.elements >= count or not circle_has_room() then
        return
      end
      -- Where many callers wait, those that may not begin are not the first to be checked the next time.
      plan.taken[caller] = #callers == 100 and 0 or nil
      if line_length(caller) == 0 or may_begin(caller) then
        choose_of_line(caller)
      end
    end
  end

  local function choose_of_queue()
    while #plan.elements < count do
      local page = math.max(math.min(count - #plan.elements, 100), 10)
      local elements = redis.call('LRANGE', queue.messages, plan.scanned, plan.scanned + page - 1)
      local bodies = #elements > 0 and bodies_of(elements, queue) or {}
      local callers, submissions, known = {}, {}, {}
      for i, element in ipairs(elements) do
        callers[i], submissions[i] = caller_of(element, bodies[i])
        known[#known + 1] = callers[i]
      end
      load_buckets(known)
      for i, element in ipairs(elements) do
        if #plan.elements >= count or not circle_has_room() then
          return
        end
        local caller, submission = callers[i], submissions[i]
        if not caller or line_length(caller) == 0 and may_begin(caller) then
          begin(element, bodies[i], caller)
        else
          plan.parked[#plan.parked + 1] = {caller, element, bodies[i], submission or ''}
          plan.left[caller] = plan.left[caller] + 1
        end
        plan.scanned = plan.scanned + 1
      end
      if #elements < page then
        return
      elseif plan.scanned >= 1000 then
        refuse(1) -- the server has others to serve
        return
      end
    end
  end

  if turns then
    choose_by_turns(queue, plan, count, turns, {
      caller_of = caller_of,
      has_room = circle_has_room,
      may_begin = may_begin,
      begin = begin,
      line_length = line_length,
      load_buckets = load_buckets,
      weight_of = function(caller) return limits_of(caller).weight end,
    })
  else
    -- Either comes first half of the time: neither a long line nor a full queue keeps the other waiting.
    local first, second = choose_of_lines, choose_of_queue
    if time[2] % 2 == 1 then
      first, second = second, first
    end
    first()
    second()
  end
  plan.counted = held ~= nil
  if #plan.elements >= count then
    plan.wait = 0
  end
  return plan
end

-- Prove that `settle` cannot fail, and write what does no harm if nothing else is written. `plan`: of `choose`.
local function prepare(queue, plan, time, turns)
  local keys = keys_of_lines(queue.messages)
  redis.call('LTRIM', queue.messages, 0, -1)
  local checked = {}
  for _, one in ipairs(plan.parked) do
    local caller = one[1]
    if not checked[caller] then
      checked[caller] = redis.call('LLEN', line_of(queue.messages, caller)) -- raises an error if it is no list
      local score = turns and turns.callers[caller].virtual or milliseconds(time)
      redis.call('ZADD', keys.lines, 'NX', score, caller)
    end
  end
  if #plan.parked > 0 then
    require_right('RPUSH', keys.lines, '')
    require_right('LPUSH', keys.lines, '')
    plan.number = redis.call('INCRBY', keys.number, #plan.parked) - #plan.parked
  end
  plan.buckets.write()
end

-- Take the elements of a plan from where they are, and park those that may not begin. `turns`: as for `prepare`.
local function settle(queue, plan, time, turns)
  redis.call('LTRIM', queue.messages, plan.scanned, -1)
  for caller, count in pairs(plan.taken) do redis.call('LTRIM', line_of(queue.messages, caller), count, -1) end
  for i, one in ipairs(plan.parked) do
    local caller, element, body, submission = unpack(one, 1, 4)
    if body then -- it was held before, so it is older than all in the line
      redis.call('LPUSH', line_of(queue.messages, caller), parked_form(0, '', element))
    else
      redis.call('RPUSH', line_of(queue.messages, caller), parked_form(plan.number + i, submission, element))
    end
  end
  for caller in pairs(plan.taken) do
    if plan.left[caller] == 0 then
      redis.pcall('ZREM', keys_of_lines(queue.messages).lines, caller)
    elseif not turns then -- else the turn is written with the others
      redis.pcall('ZADD', keys_of_lines(queue.messages).lines, milliseconds(time), caller)
    end
  end
end
