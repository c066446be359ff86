-- Count what is where in circles.
--
-- KEYS  for each circle: native list, messages (list), published (sorted set), delayed (sorted set), delayed messages
--       (sorted set), dead (sorted set), leases (sorted set)
-- ARGV  1 start of the names of acks, up to a broker id   then for each circle: its queue
-- Returns for each circle: waiting, buffered, running, delayed, dead, workers.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counts = {}

local function size(command, key)
  local reply = redis.pcall(command, key)
  return type(reply) == 'number' and reply or 0 -- a key of another type is no reason to show nothing
end

for i = 1, #KEYS, 7 do
  local queue, held, workers = ARGV[1 + (i + 6) / 7], 0, 0
  local leases = redis.call('ZRANGE', KEYS[i + 6], 0, -1, 'WITHSCORES')
  for l = 1, #leases, 2 do
    held = held + size('SCARD', ARGV[1] .. leases[l] .. '.' .. queue)
    workers = workers + (tonumber(leases[l + 1]) >= now and 1 or 0)
  end
  counts[#counts + 1] = {
    size('LLEN', KEYS[i]),
    size('LLEN', KEYS[i + 1]) + size('ZCARD', KEYS[i + 2]),
    held,
    size('ZCARD', KEYS[i + 3]) + size('ZCARD', KEYS[i + 4]),
    size('ZCARD', KEYS[i + 5]),
    workers,
  }
end
return counts
