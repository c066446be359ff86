-- Take messages off their list for RabbitMQ; until a worker has claimed them, they count as published. `number.lua`
-- stands before this.
--
-- KEYS  1 messages (list)   2 bodies (hash)   3 sequence (string)   4 published (sorted set)   5 deliveries (hash)
-- ARGV  1 how many   2 start of a message, up to its argument
-- Returns their ids.
-- First of all a write that a server without memory refuses: nothing is half done then.
redis.call('ZADD', KEYS[4], 'XX', 0, '')
local time = redis.call('TIME')
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then
  return {}
end
number(ids, time, KEYS[2], KEYS[3], KEYS[5], ARGV[2])
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000), id)
end
return ids
