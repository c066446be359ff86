-- Mark running tasks as `processing`, if the broker still holds their messages: a final status is never overwritten.
--
-- Needs  connection/common, queue/cancellation
-- KEYS  1 acks (set)
-- ARGV  1 time for `updatedAt`   2 start of the names of channels for states
--       then for each task: message id, details key, submission as it was fetched or nothing
for i = 3, #ARGV, 3 do
  local details = ARGV[i + 1]
  if redis.call('SISMEMBER', KEYS[1], ARGV[i]) == 1 then
    local known = read('HMGET', details, FIELD.status, FIELD.error, FIELD.submission)
    if known and not is_cancelled(known[1], known[2]) and (known[3] or '') == ARGV[i + 2] then
      redis.call('HSET', details, FIELD.status, STATUS.processing, FIELD.updatedAt, ARGV[1])
      redis.pcall('PUBLISH', ARGV[2] .. details, WORD.processing)
    end
  end
end
