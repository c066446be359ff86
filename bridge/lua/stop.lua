-- Cancel the tasks that lists of requests name. A request that names no task, or one that has ended, has no effect.
--
-- Needs  connection/common, queue/cancellation
-- KEYS  lists of requests: ids of tasks
-- ARGV  1 prefix of details keys   2 time for `updatedAt`   3 channel for cancels
--       4 start of the names of channels for states   5 how many requests of each list, at most
-- Returns how many tasks were cancelled.
local cancelled = 0
for _, list in ipairs(KEYS) do
  local ids = read('LRANGE', list, 0, ARGV[5] - 1) or {} -- none where the key holds no list
  if #ids > 0 then
    redis.call('LTRIM', list, 0, -1) -- removes nothing, and proves that the requests can be removed
  end
  for _, id in ipairs(ids) do
    local details = ARGV[1] .. id
    local status = read('HGET', details, FIELD.status)
    local has_ended = status == STATUS.completed or status == STATUS.error
    if status and not has_ended or status == false and redis.call('EXISTS', details) == 1 then
      write_cancelled(details, ARGV[2], ARGV[4])
      redis.pcall('PUBLISH', ARGV[3], id)
      cancelled = cancelled + 1
    end
  end
  if #ids > 0 then
    redis.call('LTRIM', list, #ids, -1)
  end
end
return cancelled
