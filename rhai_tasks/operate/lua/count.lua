-- Count the tasks, dead letters and workers of circles.
--
-- Needs  connection/common, queue/keys, queue/lines
-- KEYS  for each circle: native list, messages (list), published (sorted set), delayed (sorted set), delayed messages
--       (sorted set), bodies of dramatiq's delay queue (hash), dead (sorted set), leases (sorted set), rules (hash)
-- ARGV  1 start of the names of acks, up to a broker id   then for each circle: its queue
-- Returns for each circle: waiting, buffered, parked, held, delayed, dead, workers, 1 if it is paused, else 0, rules.
local now = milliseconds(redis.call('TIME'))
local counts = {}

local function size(command, key)
  local reply = redis.pcall(command, key)
  return type(reply) == 'number' and reply or 0 -- a key of another type is no reason to show nothing
end

for i = 1, #KEYS, 9 do
  local queue, held, workers = ARGV[1 + (i + 8) / 9], 0, 0
  local leases = redis.pcall('ZRANGE', KEYS[i + 7], 0, -1, 'WITHSCORES')
  leases = leases.err and {} or leases
  for l = 1, #leases, 2 do
    held = held + size('SCARD', acks_of({leases[l]}, ARGV[1], queue)[1])
    workers = workers + (tonumber(leases[l + 1]) >= now and 1 or 0)
  end
  local parked, callers = 0, redis.pcall('ZRANGE', keys_of_lines(KEYS[i + 1]).lines, 0, -1)
  for _, caller in ipairs(callers) do parked = parked + size('LLEN', line_of(KEYS[i + 1], caller)) end
  counts[#counts + 1] = {
    size('LLEN', KEYS[i]),
    size('LLEN', KEYS[i + 1]) + size('ZCARD', KEYS[i + 2]),
    parked,
    held,
    size('ZCARD', KEYS[i + 3]) + size('ZCARD', KEYS[i + 4]) + size('HLEN', KEYS[i + 5]),
    size('ZCARD', KEYS[i + 6]),
    workers,
    type(redis.pcall('HGET', KEYS[i + 8], 'pause circle')) == 'string' and 1 or 0,
    size('HLEN', KEYS[i + 8]),
  }
end
return counts
