-- Take those of the messages that RabbitMQ has brought which are still nobody's; `hold.lua` goes on.
--
-- KEYS  8 published (sorted set)   the rest as in `hold.lua`
-- ARGV  1 message ids, one a line   the rest as in `hold.lua`
local time = redis.call('TIME')
-- First of all a write that a server without memory refuses: nothing is half done then.
local added = redis.call('ZADD', KEYS[5], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[2])

local ids, bodies, tasks = {}, {}, {}
for id in string.gmatch(ARGV[1], '[^\n]+') do
  -- What is not published any more has ended, is another worker's, or will be published again.
  local body = redis.call('ZREM', KEYS[8], id) == 1 and redis.call('HGET', KEYS[2], id)
  if body then
    ids[#ids + 1], bodies[#bodies + 1] = id, body
  end
end
if redis.call('LLEN', KEYS[1]) + redis.call('ZCARD', KEYS[8]) < tonumber(ARGV[4]) and redis.call('DEL', KEYS[6]) == 1 then
  redis.call('RPUSH', KEYS[7], '1')
  redis.call('PEXPIRE', KEYS[7], 10000)
end
if #ids == 0 then
  return {added, {}}
end
