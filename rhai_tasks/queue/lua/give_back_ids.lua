-- Give ids that no worker has held back to the end of the native list that they were taken from: some of the last ones,
-- so that the server has time for others before the next call. Messages go to the head of the queue.
--
-- Needs  connection/common, queue/messages, queue/lines
-- KEYS  as in `give_back.lua`
-- ARGV  as in `give_back.lua` up to 6   7 how many elements are moved at most
--       8 how many elements at the end of the queue are to be moved; nothing: all
-- Returns {how many tasks went back, how many elements of the queue are left to be moved, 1: there are lines, else 0}.
-- A server without memory refuses neither this first write nor those after it.
redis.call('DEL', KEYS[5])
local most, length = tonumber(ARGV[7]), redis.call('LLEN', KEYS[2])
local left = math.min(tonumber(ARGV[8]) or length, length)
local lines = keys_of_lines(KEYS[2]).lines
local queue = {
  messages = KEYS[2],
  bodies = KEYS[3],
  published = KEYS[6],
  leases = KEYS[7],
  acks = ARGV[4],
  name = ARGV[5],
  gone = {unpack(KEYS, 8)},
}

-- Return the elements of a line's end whose number is larger than a bound, the last one first.
local function end_of_line(line, bound)
  local size = 8
  while true do
    local some, found = redis.call('LRANGE', line, -size, -1), {}
    for i = #some, 1, -1 do
      local element, submission, number = split_parked(some[i])
      if number <= bound then
        return found
      end
      found[#found + 1] = {element, submission, number}
    end
    if #some < size or size >= most then
      return found
    end
    size = math.min(size * 4, most)
  end
end

-- Return the elements of lines with the largest numbers, the last one first, and how many these are of each line.
local function end_of_lines()
  local callers, found, counts, last = redis.call('ZRANGE', lines, 0, -1), {}, {}, -1
  local numbers = {}
  for i, caller in ipairs(callers) do
    local parked = redis.call('LRANGE', line_of(KEYS[2], caller), -1, -1)[1]
    numbers[i] = parked and select(3, split_parked(parked)) or -1
    last = math.max(last, numbers[i])
  end
  for i, caller in ipairs(callers) do
    local some = numbers[i] > last - most and end_of_line(line_of(KEYS[2], caller), last - most) or {}
    for _, one in ipairs(some) do found[#found + 1] = one end
    counts[caller] = (#some > 0 or numbers[i] < 0) and #some or nil
  end
  table.sort(found, function(a, b) return a[3] > b[3] end)
  return found, counts
end

-- 1. Read: the queue first, whose elements come after those of the lines.
local elements, submissions, counts, taken = {}, {}, {}, 0
if left > 0 then
  elements = reversed(redis.call('LRANGE', KEYS[2], -math.min(left, most), -1))
  taken = #elements
else
  local parked
  parked, counts = end_of_lines()
  for i, one in ipairs(parked) do elements[i], submissions[i] = one[1], one[2] end
end
local ids, messages = {}, {}
local bodies = bodies_of(elements, queue)
for i, element in ipairs(elements) do
  if bodies[i] then
    messages[#messages + 1] = element
  else
    local current = submissions[i] and (read('HGET', ARGV[2] .. element, FIELD.submission) or '')
    if current == submissions[i] then -- else it has been submitted anew, and waits elsewhere
      ids[#ids + 1] = element
    end
  end
end

-- 2. Prove that the rest can be done.
redis.call('LTRIM', KEYS[2], 0, -1)
require_right('ZREM', KEYS[5], '')
redis.call('LTRIM', KEYS[1], 0, -1)
require_right('LPUSH', KEYS[5], '')
require_right('RPUSH', KEYS[5], '')

-- 3. Add and remove.
call_with_all(ARGV[6] == 'oldest' and 'RPUSH' or 'LPUSH', KEYS[1], ids)
if taken > 0 then
  redis.call('LTRIM', KEYS[2], 0, -1 - taken)
end
call_with_all('LPUSH', KEYS[2], messages)
for caller, count in pairs(counts) do
  local line = line_of(KEYS[2], caller)
  redis.call('LTRIM', line, 0, -1 - count)
  if redis.call('EXISTS', line) == 0 then
    redis.call('ZREM', lines, caller)
  end
end
return {#ids, left - taken, redis.call('EXISTS', lines)}
