-- Cancel the tasks of the messages that one broker holds and has not begun to run, and notify the broker.
--
-- Needs  connection/common, queue/messages, queue/cancellation, queue/changes
-- KEYS  1 acks of the broker (set)   2 bodies (hash)
-- ARGV  1 prefix of details keys   2 time for `updatedAt`   3 channel for cancels
--       4 start of the names of channels for states   5 name of the actor that runs tasks
--       6 namespace
-- Returns how many were cancelled.
local cancelled = 0
for _, id in ipairs(read('SMEMBERS', KEYS[1]) or {}) do
  local body = read('HGET', KEYS[2], id)
  local task = body and task_of(body, ARGV[5])
  local details = task and ARGV[1] .. task
  local status = task and read('HGET', details, FIELD.status)
  if status == STATUS.pending or task and status == false and redis.call('EXISTS', details) == 1 then
    note_change(ARGV[6])
    write_cancelled(details, ARGV[2], ARGV[4])
    redis.pcall('PUBLISH', ARGV[3], task)
    cancelled = cancelled + 1
  end
end
return cancelled
