-- Cancel a task that has not ended: a worker that fetches it passes it over, a worker that runs it stops its script.
--
-- Needs  queue/cancellation, queue/changes
-- KEYS  1 details (hash)
-- ARGV  1 task id   2 time for `updatedAt`   3 channel for cancels   4 start of the names of channels for states
--       5 namespace
-- Returns "cancelled", now or before; the final status of a task that ended otherwise; nil: there is none.
local known = redis.call('HMGET', KEYS[1], FIELD.status, FIELD.error)
if is_cancelled(known[1], known[2]) then
  return WORD.cancelled
elseif known[1] == STATUS.error or known[1] == STATUS.completed then
  return known[1]
elseif redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
note_change(ARGV[5])
write_cancelled(KEYS[1], ARGV[2], ARGV[4])
redis.pcall('PUBLISH', ARGV[3], ARGV[1])
return WORD.cancelled
