-- Count a delivery before its script can end the process, if the broker still holds the message.
--
-- KEYS  1 acks (set)   2 deliveries (hash)
-- ARGV  1 message id   2 how often a process has died with it, should this one
-- Returns 1 if it was counted.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
