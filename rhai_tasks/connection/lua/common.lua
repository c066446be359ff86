-- Make messages of what are tasks' ids: what has no body, as the native list held it. Numbers follow the clock, and
-- never go back: a server that came back without its last second gives none out again that a worker may still hold for
-- another task. Stands before a script that calls this.
--
-- Deaths that `give_back.lua` has kept by a task's id are counted on.
--
-- Changes the ids. Returns the bodies of those that were messages before, and the tasks' ids of the others, by position.
-- `head`: start of a message, up to its argument.
local function number(ids, time, bodies_key, sequence_key, deliveries_key, head)
  local bodies, tasks = redis.call('HMGET', bodies_key, unpack(ids)), {}
  local last
  local made = {}
  for i, id in ipairs(ids) do
    if not bodies[i] then
      last = (last or math.max(tonumber(redis.call('GET', sequence_key) or 0), time[1] * 1000000 + time[2])) + 1
      tasks[i], ids[i] = id, string.format('m-%.0f', last)
      made[#made + 1] = ids[i]
      made[#made + 1] = head .. cjson.encode(id)
        .. '],"options":{"redis_message_id":"' .. ids[i] .. '"},"message_id":"' .. ids[i] .. '"}'
    end
  end
  if last then
    redis.call('HSET', bodies_key, unpack(made))
    redis.call('SET', sequence_key, string.format('%.0f', last))
    if redis.call('EXISTS', deliveries_key) == 1 then
      for i, task in pairs(tasks) do
        local deaths = redis.call('HGET', deliveries_key, ':' .. task)
        if deaths then
          redis.call('HSET', deliveries_key, ids[i], deaths)
          redis.call('HDEL', deliveries_key, ':' .. task)
        end
      end
    end
  end
  return bodies, tasks
end
