-- A function that puts the id of a task into one place, wherever it was before.
--
-- Needs  connection/common, queue/keys, queue/cancellation, queue/changes

-- Take ids that are submitted again out of where they wait: they would run twice otherwise. To search a list costs more
-- the longer it is, so only a task that may still wait is searched for. Raises an error before anything is changed if
-- the ids could not be submitted afterwards. Returns an id that is a message's id of the queue, too, if there is one:
-- nothing was changed then, since to remove the id could remove the message.
--
-- `known`: by id, {status, error, circle} of its details. `push`: LPUSH or RPUSH; `list`: the key that it is for;
-- `set`: the sorted set of delayed ids; `scratch`: a key that nothing else uses. `circle`: where the ids are submitted
-- to; `native`: prefix of native lists.
local function take_out(known, push, list, set, scratch, circle, native, namespace)
  -- Return the places where an id may wait: lists, and sorted sets. `one`: its {status, error, circle}.
  local function waiting_places(one)
    local lists, sets = {}, {}
    if one[1] == STATUS.completed or one[1] == STATUS.error and not is_cancelled(one[1], one[2]) then
      return lists, sets -- it has ended
    end
    for _, place in ipairs(one[3] and one[3] ~= circle and {circle, one[3]} or {circle}) do
      local messages = namespace .. ':' .. queue_of(place)
      local keys = keys_of(messages)
      lists[#lists + 1], lists[#lists + 2] = native .. place, messages
      sets[#sets + 1], sets[#sets + 2] = keys.delayed, keys.delayed_messages
    end
    return lists, sets
  end

  redis.call('HSET', scratch, '', '')
  require_right(push, scratch, '')
  redis.call('DEL', scratch)
  redis.call('LREM', scratch, 0, '')
  redis.call('LLEN', list)
  redis.call('ZADD', set, 'XX', 0, '')
  redis.call('ZREM', set, '')
  for id, one in pairs(known) do
    local lists, sets = waiting_places(one)
    for _, key in ipairs(lists) do redis.call('LLEN', key) end
    for _, key in ipairs(sets) do redis.call('ZCARD', key) end
    for i = 2, #lists, 2 do
      if redis.call('HEXISTS', keys_of(lists[i]).bodies, id) == 1 then
        return id
      end
    end
  end
  note_change(namespace)
  for id, one in pairs(known) do
    local lists, sets = waiting_places(one)
    for _, key in ipairs(lists) do redis.call('LREM', key, 0, id) end
    for _, key in ipairs(sets) do redis.call('ZREM', key, id) end
  end
end
