-- Mark running tasks as `processing`, those that the broker still holds: a final status is never overwritten.
--
-- KEYS  1 acks (set)
-- ARGV  1 time for `updatedAt`   then for each task: message id, details key
for i = 2, #ARGV, 2 do
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 then
    redis.pcall('HSET', ARGV[i + 1], 'status', 'processing', 'updatedAt', ARGV[1])
  end
end
