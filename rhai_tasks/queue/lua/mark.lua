-- Mark running tasks as `processing`, those that the broker still holds: a final status is never overwritten.
--
-- KEYS  1 acks (set)
-- ARGV  1 time for `updatedAt`   2 start of the names of channels for states
--       then for each task: message id, details key
for i = 3, #ARGV, 2 do
  local details = ARGV[i + 1]
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 then
    local known = redis.pcall('HMGET', details, 'status', 'error')
    if not known.err and not (known[1] == 'error' and known[2] == 'cancelled') then
      redis.call('HSET', details, 'status', 'processing', 'updatedAt', ARGV[1])
      redis.pcall('PUBLISH', ARGV[2] .. details, 'processing')
    end
  end
end
