-- Enqueue one message, whole or not at all, now or after a delay, and write the details of its task.
--
-- KEYS  1 messages (list)   2 bodies (hash)   3 registry (set)   4 delayed messages (sorted set)   5 wake (list)
--       6 details (hash)
-- ARGV  1 message id   2 body   3 queue name   4 delay in milliseconds   5 "1": before all others
--       6 on: names and values of the details' fields; none: the details are somebody else's
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
if ARGV[6] then
  redis.call('DEL', KEYS[6]) -- of an earlier run
  for first = 6, #ARGV, 1000 do -- Lua has no room for many thousand arguments
    redis.call('HSET', KEYS[6], unpack(ARGV, first, math.min(first + 999, #ARGV)))
  end
end
if ARGV[4] == '0' then
  redis.call(ARGV[5] == '1' and 'LPUSH' or 'RPUSH', KEYS[1], ARGV[1])
else
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[4], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[4]), ARGV[1])
  redis.call('LPUSH', KEYS[5], '1')
  redis.call('LTRIM', KEYS[5], 0, 0)
  redis.call('PEXPIRE', KEYS[5], 10000)
end
if string.sub(ARGV[3], 1, 5) == 'rhai-' then -- our workers follow no other queues
  redis.call('SADD', KEYS[3], ARGV[3])
end
