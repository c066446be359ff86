-- Search some more keys for tasks with certain values.
--
-- Needs  nothing
-- ARGV  1 cursor   2 pattern of details keys   3 how many keys are scanned, about   4 how many tasks are enough
--       5 status   6 caller   7 circle: each may be empty, for any; a task without
--       the field circle is of the circle that its contextId names
-- Returns {cursor to go on from, "0" at the end; how many keys were scanned; the tasks' keys...}.
local cursor, scanned, found = ARGV[1], 0, {}
repeat
  local some = redis.call('SCAN', cursor, 'MATCH', ARGV[2], 'COUNT', 100)
  cursor, scanned = some[1], scanned + 100
  for _, key in ipairs(some[2]) do
    local known =
      redis.pcall('HMGET', key, FIELD.status, FIELD.callerId, FIELD.publicKey, FIELD.circle, FIELD.contextId)
    if not known.err
      and (ARGV[5] == '' or known[1] == ARGV[5])
      and (ARGV[6] == '' or (known[2] or known[3]) == ARGV[6])
      and (ARGV[7] == '' or (known[4] or known[5]) == ARGV[7]) then
      found[#found + 1] = key
    end
  end
until cursor == '0' or scanned >= tonumber(ARGV[3]) or #found >= tonumber(ARGV[4])
return {cursor, scanned, found}
