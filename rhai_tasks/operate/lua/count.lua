-- Count the tasks, dead letters and workers of circles.
--
-- Needs  connection/common, queue/keys, queue/messages, queue/lines
-- KEYS  for each circle: native list, messages (list), published (sorted set), delayed (sorted set), delayed messages
--       (sorted set), bodies of dramatiq's delay queue (hash), dead (sorted set), leases (sorted set), rules (hash)
-- ARGV  1 start of the names of acks, up to a broker id   2 prefix of details keys   3 name of the actor that runs
--       tasks   then for each circle: its queue
-- Returns the server's milliseconds, and for each circle: waiting, buffered, parked, held, delayed, dead, workers, 1 if
-- it is paused, else 0, rules, 1 if delayed ones are due, else 0, and `createdAt` of the tasks at both ends of each
-- list: the oldest is one of them.
local now = milliseconds(redis.call('TIME'))
local counts = {}

local function size(command, key)
  local reply = redis.pcall(command, key)
  return type(reply) == 'number' and reply or 0 -- a key of another type is not a reason to show nothing
end

-- Add when the tasks at the ends of a list were created. `length`: the list's; `bodies`: key of the messages, if it may
-- hold some.
local function add_created(found, list, length, bodies)
  for place = math.max(-length, -1), length > 1 and 0 or -1 do
    local element = redis.pcall('LRANGE', list, place, place)[1]
    if element and bodies then
      element = split_parked(element)
      local body = redis.pcall('HGET', bodies, element)
      element = type(body) == 'string' and task_of(body, ARGV[3]) or element
    end
    local created = element and redis.pcall('HGET', ARGV[2] .. element, FIELD.createdAt)
    if type(created) == 'string' then
      found[#found + 1] = created
    end
  end
end

-- Count the delayed tasks of a circle, and say whether one is due.
local function count_delayed(tasks, messages)
  local total, due = 0, false
  for _, key in ipairs({tasks, messages}) do
    local count = size('ZCARD', key)
    local first = count > 0 and redis.pcall('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
    total, due = total + count, due or first and tonumber(first) <= now
  end
  return total, due
end

for i = 1, #KEYS, 9 do
  local queue, held, workers = ARGV[3 + (i + 8) / 9], 0, 0
  local leases = redis.pcall('ZRANGE', KEYS[i + 7], 0, -1, 'WITHSCORES')
  leases = leases.err and {} or leases
  for l = 1, #leases, 2 do
    held = held + size('SCARD', acks_of({leases[l]}, ARGV[1], queue)[1])
    workers = workers + (tonumber(leases[l + 1]) >= now and 1 or 0)
  end
  local waiting, buffered, rules = size('LLEN', KEYS[i]), size('LLEN', KEYS[i + 1]), size('HLEN', KEYS[i + 8])
  local is_paused = rules > 0 and type(redis.pcall('HGET', KEYS[i + 8], 'pause circle')) == 'string'
  local delayed, has_due = count_delayed(KEYS[i + 3], KEYS[i + 4])
  local parked, callers = 0, redis.pcall('ZRANGE', keys_of_lines(KEYS[i + 1]).lines, 0, -1)
  local created, bodies = {}, keys_of(KEYS[i + 1]).bodies
  add_created(created, KEYS[i], waiting)
  add_created(created, KEYS[i + 1], buffered, bodies)
  for n, caller in ipairs(callers) do
    local length = size('LLEN', line_of(KEYS[i + 1], caller))
    parked = parked + length
    if n <= 100 then
      add_created(created, line_of(KEYS[i + 1], caller), length, bodies)
    end
  end
  counts[#counts + 1] = {
    waiting,
    buffered + size('ZCARD', KEYS[i + 2]),
    parked,
    held,
    delayed + size('HLEN', KEYS[i + 5]),
    size('ZCARD', KEYS[i + 6]),
    workers,
    is_paused and 1 or 0,
    rules,
    has_due and 1 or 0,
    created,
  }
end
return {now, counts}
