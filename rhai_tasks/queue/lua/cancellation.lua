-- Functions about cancelled tasks.
--
-- Needs  nothing

-- `status`, `error`: fields of the task's details.
local function is_cancelled(status, error)
  return status == STATUS.error and error == WORD.cancelled
end

-- End a task as cancelled, and publish that. `at`: for `updatedAt`; `channels`: start of the names of channels for
-- states.
local function write_cancelled(details, at, channels)
  redis.call('HDEL', details, FIELD.output, FIELD.errorKind) -- of an earlier run
  redis.call('HSET', details, FIELD.status, STATUS.error, FIELD.error, WORD.cancelled, FIELD.updatedAt, at)
  redis.pcall('PUBLISH', channels .. details, WORD.error .. ' ' .. WORD.cancelled)
end
