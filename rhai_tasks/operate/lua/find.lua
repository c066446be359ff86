-- Search some more keys for tasks with certain values.
--
-- Needs  nothing
-- ARGV  1 cursor   2 pattern of details keys   3 how many keys are scanned, about   4 how many tasks are enough
--       5 status   6 caller   7 circle   8 part of the error: each may be empty, for any; a task without
--       the field circle is of the circle that its contextId names
--       9 bytes of an error that are searched and returned; one of more than 64 KiB is not read
-- Returns {cursor to go on from, "0" at the end; how many keys were scanned; {key, status, caller, circle, start of the
-- error, updatedAt or else createdAt} of each task}; values are empty where absent.
local cursor, scanned, found = ARGV[1], 0, {}

local function error_of(key)
  if redis.call('HSTRLEN', key, FIELD.error) > 65536 then
    return ''
  end
  return string.sub(redis.call('HGET', key, FIELD.error) or '', 1, tonumber(ARGV[9]))
end

repeat
  local some = redis.call('SCAN', cursor, 'MATCH', ARGV[2], 'COUNT', 100)
  cursor, scanned = some[1], scanned + 100
  for _, key in ipairs(some[2]) do
    local known = redis.pcall('HMGET', key, FIELD.status, FIELD.callerId, FIELD.publicKey, FIELD.circle,
      FIELD.contextId, FIELD.updatedAt, FIELD.createdAt)
    if not known.err
      and (ARGV[5] == '' or (known[1] or STATUS.pending) == ARGV[5])
      and (ARGV[6] == '' or (known[2] or known[3]) == ARGV[6])
      and (ARGV[7] == '' or (known[4] or known[5]) == ARGV[7]) then
      local text = known[1] == STATUS.error and error_of(key) or ''
      if ARGV[8] == '' or string.find(text, ARGV[8], 1, true) then
        found[#found + 1] = {key, known[1] or '', known[2] or known[3] or '', known[4] or known[5] or '', text,
          known[6] or known[7] or ''}
      end
    end
  end
until cursor == '0' or scanned >= tonumber(ARGV[3]) or #found >= tonumber(ARGV[4])
return {cursor, scanned, found}
