-- Remove the tasks that wait in a circle, some hundred at a time; publish to their clients that they were cancelled.
--
-- Needs  connection/common, queue/messages, queue/lines, queue/cancellation
-- KEYS  1 native list   2 messages (list)   3 bodies (hash)   4 deliveries (hash)   5 delayed (sorted set)
--       6 delayed messages (sorted set)   7 published (sorted set)   8 leases (sorted set)
-- ARGV  1 how many   2 prefix of details keys   3 time for `updatedAt`   4 start of the names of channels for states
--       5 name of the actor that runs tasks   6 start of the names of acks, up to a broker id   7 queue name
-- Returns how many were removed; 0: nothing is left.

-- 1. Read.
local most = ARGV[1] - 1
local natives = redis.call('LRANGE', KEYS[1], 0, most)
local elements = redis.call('LRANGE', KEYS[2], 0, most)
local delayed = redis.call('ZRANGE', KEYS[5], 0, most)
local delayed_messages = redis.call('ZRANGE', KEYS[6], 0, most)
local published = redis.call('ZRANGE', KEYS[7], 0, most)
local lines = keys_of_lines(KEYS[2]).lines
local parked, caller, line = {}, nil, nil
for _, name in ipairs(redis.call('ZRANGE', lines, 0, -1)) do
  caller, line = name, line_of(KEYS[2], name)
  parked = redis.call('LRANGE', line, 0, most)
  if #parked > 0 then
    break
  end
end
local is_whole = caller and redis.call('LLEN', line) == #parked
local removed = #natives + #elements + #delayed + #delayed_messages + #published + #parked
if removed == 0 then
  return 0
end
local tasks, messages = {}, {}
for _, list in ipairs({natives, delayed}) do
  for _, id in ipairs(list) do tasks[#tasks + 1] = id end
end
local function sort_message(id, body)
  messages[#messages + 1] = id
  tasks[#tasks + 1] = task_of(body, ARGV[5])
end
local queue = {
  messages = KEYS[2],
  bodies = KEYS[3],
  published = KEYS[7],
  leases = KEYS[8],
  acks = ARGV[6],
  name = ARGV[7],
}
sort_elements(elements, queue, sort_message, function(id) tasks[#tasks + 1] = id end)
for i, one in ipairs(parked) do parked[i] = split_parked(one) end
sort_elements(parked, queue, sort_message, function(id) tasks[#tasks + 1] = id end)
for _, list in ipairs({delayed_messages, published}) do
  for _, id in ipairs(list) do
    local body = redis.call('HGET', KEYS[3], id)
    if body then
      sort_message(id, body)
    else
      tasks[#tasks + 1] = id
    end
  end
end

-- 2. Prove that the removals can be done.
redis.call('LTRIM', KEYS[1], 0, -1)
if caller then
  redis.call('LTRIM', line, 0, -1)
end
redis.call('LTRIM', KEYS[2], 0, -1)
for i = 5, 7 do redis.call('ZREM', KEYS[i], '') end
redis.call('HDEL', KEYS[3], '')
redis.call('HDEL', KEYS[4], '')

-- 3. Write the ends; an error here leaves tasks where they are, and a purge that is repeated removes them.
for _, id in ipairs(tasks) do
  local details = ARGV[2] .. id
  local status = read('HGET', details, FIELD.status)
  local waits = status == STATUS.pending or status == STATUS.processing
  if waits or status == false and redis.call('EXISTS', details) == 1 then
    write_cancelled(details, ARGV[3], ARGV[4])
  end
end

-- 4. Remove.
redis.call('LTRIM', KEYS[1], #natives, -1)
redis.call('LTRIM', KEYS[2], #elements, -1)
if caller then
  redis.call('LTRIM', line, #parked, -1)
  if is_whole then
    redis.pcall('ZREM', lines, caller) -- a caller without a line does no harm
  end
end
for key, list in pairs({[5] = delayed, [6] = delayed_messages, [7] = published}) do
  call_with_all('ZREM', KEYS[key], list)
end
for _, id in ipairs(messages) do
  redis.call('HDEL', KEYS[3], id)
  redis.call('HDEL', KEYS[4], id)
end
return removed
