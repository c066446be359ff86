-- Renew a broker's lease, by the server's clock, and look which of its tasks were cancelled.
--
-- KEYS  1 leases (sorted set)   2 acks of that broker (set)
-- ARGV  1 broker id   2 lease in milliseconds   3 on: details keys of tasks that it holds
-- Returns {1 if the lease still stood, else 0; ids of brokers whose lease has run out; positions of the
-- tasks that were cancelled, from 0; if the lease did not stand, ids of the messages that the broker still holds}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stood = 1 - redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
local cancelled = {}
for i = 3, #ARGV do
  local known = redis.pcall('HMGET', ARGV[i], 'status', 'error')
  if known[1] == 'error' and known[2] == 'cancelled' then
    cancelled[#cancelled + 1] = i - 3
  end
end
local held = stood == 1 and {} or redis.call('SMEMBERS', KEYS[2])
return {stood, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now), cancelled, held}
