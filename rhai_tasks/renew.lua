-- Renew a broker's lease, by the server's clock.
--
-- KEYS  1 leases (sorted set)
-- ARGV  1 broker id   2 lease in milliseconds
-- Returns {1 if the lease still stood, else 0; ids of brokers whose lease has run out}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local added = redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return {1 - added, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)}
