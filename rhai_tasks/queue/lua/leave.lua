-- Give up a lease under which no messages are held. A lease with messages stays: when it runs out, they are recovered.
--
-- Needs  nothing
-- KEYS  1 leases (sorted set)   2 acks of that broker (set)
-- ARGV  1 broker id
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
