-- Delete the details of tasks that have ended; one that was submitted again meanwhile keeps them.
--
-- Needs  nothing
-- KEYS  details (hashes)
-- Returns how many were deleted.
local count = 0
for _, key in ipairs(KEYS) do
  local status = redis.pcall('HGET', key, FIELD.status)
  if status == STATUS.completed or status == STATUS.error then
    count = count + redis.call('DEL', key)
  end
end
return count
