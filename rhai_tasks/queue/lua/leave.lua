-- Give a lease up, unless messages are held under it: it is what brings them back, should their broker be gone for good.
--
-- KEYS  1 leases (sorted set)   2 acks of that broker (set)
-- ARGV  1 broker id
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
