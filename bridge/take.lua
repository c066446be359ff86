-- Take ids off a native list and turn them into dramatiq messages, in one step: there is no moment in
-- which a task is in neither place.
--
-- KEYS  1 native list   2 in flight (list)   3 messages (list)   4 bodies (hash)   5 sequence (string)
--       6 full (string)   7 registry (set)
-- ARGV  1 how many messages may wait   2 start of a message, up to its argument   3 queue name
-- Returns {how many were taken, how many messages may still come}.
-- First of all a write that a server without memory refuses: nothing is half done then.
redis.call('INCRBY', KEYS[5], 0)
local held = redis.call('LRANGE', KEYS[2], 0, -1) -- this bridge's, or what one that died left behind
local room = ARGV[1] - redis.call('LLEN', KEYS[3]) - #held
local ids = held
if room > 0 then
  local more = redis.pcall('LPOP', KEYS[1], room)
  if type(more) == 'table' and not more.err then
    ids = {}
    for _, id in ipairs(held) do ids[#ids + 1] = id end
    for _, id in ipairs(more) do ids[#ids + 1] = id end
  end
end
room = ARGV[1] - redis.call('LLEN', KEYS[3]) - #ids
if room <= 0 then
  redis.call('SET', KEYS[6], '1', 'PX', 10000)
end
if #ids == 0 then
  return {0, room}
end
-- By the clock, and never backwards: a server that came back without its last second gives no number out again
-- that a worker may still hold for another task.
local time = redis.call('TIME')
local last = math.max(tonumber(redis.call('GET', KEYS[5])), time[1] * 1000000 + time[2])
for _, id in ipairs(ids) do
  last = last + 1
  local name = string.format('%.0f', last)
  redis.call('HSET', KEYS[4], name, ARGV[2] .. cjson.encode(id)
    .. '],"options":{"redis_message_id":"' .. name .. '"},"message_id":"' .. name .. '"}')
  redis.call('RPUSH', KEYS[3], name)
end
redis.call('SET', KEYS[5], string.format('%.0f', last))
redis.call('DEL', KEYS[2])
redis.call('SADD', KEYS[7], ARGV[3])
return {#ids, room}
