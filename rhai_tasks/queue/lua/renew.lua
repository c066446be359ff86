-- Renew a broker's lease, by the server's clock, and look which of its tasks were cancelled.
--
-- KEYS  1 leases (sorted set)   2 acks of that broker (set)   3 workers (hash)
-- ARGV  1 broker id   2 lease in milliseconds   3 its heartbeat, a JSON object that gets the server's time, or nothing
--       4 on: details keys of tasks that it holds
-- Returns {1 if the lease still stood, else 0; ids of brokers whose lease has run out; positions of the
-- tasks that were cancelled, from 0; if the lease did not stand, ids of the messages that the broker still holds;
-- how many it holds; the server's millisecond}.
-- First of all a write that a server without memory does not refuse, nor then what follows: who lives must keep its lease
-- when others, by chance, can.
redis.call('ZREM', KEYS[1], '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stood = 1 - redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[3], ARGV[1], '{"at":' .. string.format('%.0f', now) .. ',' .. string.sub(ARGV[3], 2))
  redis.call('PEXPIRE', KEYS[3], 3600000)
  -- Who was killed leaves its heartbeat behind: each that comes looks at some others.
  local some = redis.call('HRANDFIELD', KEYS[3], 3, 'WITHVALUES')
  for i = 1, #some, 2 do
    local at = string.match(some[i + 1], '^{"at":(%d+),')
    if not at or at + 60000 < now then
      redis.call('HDEL', KEYS[3], some[i])
    end
  end
end
local cancelled = {}
for i = 4, #ARGV do
  local known = redis.pcall('HMGET', ARGV[i], 'status', 'error')
  if known[1] == 'error' and known[2] == 'cancelled' then
    cancelled[#cancelled + 1] = i - 4
  end
end
local held = stood == 1 and {} or redis.call('SMEMBERS', KEYS[2])
return {stood, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now), cancelled, held, redis.call('SCARD', KEYS[2]), now}
