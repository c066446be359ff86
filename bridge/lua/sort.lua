-- Sort ids of a native list into the lines of their callers, oldest first. The last one goes into the queue, where it
-- wakes workers.
--
-- Needs  connection/common, queue/keys, queue/messages, queue/lines, queue/turns
-- KEYS  1 native list   2 messages (list)   3 registry (set)   4 bodies (hash)   5 published (sorted set)
--       6 leases (sorted set)
-- ARGV  1 queue name   2 prefix of details keys   3 start of the names of acks, up to a broker id
-- Returns {how many were moved, 1: more may come}.
-- A server without memory refuses this first write: nothing is half done then.
redis.call('SADD', KEYS[3], ARGV[1])
local time, keys = redis.call('TIME'), keys_of_turns(KEYS[2])
redis.call('HSETNX', keys.turns, 'highest', number_of_turns(milliseconds(time)))
for _, key in pairs(keys) do redis.pcall('PEXPIRE', key, 30000) end -- once no bridge keeps turns, there are none

-- 1. Read. What waits in the queue is older than the native list.
local most = 1000 -- ids: the server has others to serve
local elements = redis.call('LRANGE', KEYS[2], 0, most - 1)
local queue = {messages = KEYS[2], bodies = KEYS[4], published = KEYS[5], leases = KEYS[6], acks = ARGV[3],
  name = ARGV[1]}
local ids, stay = {}, {}
if #elements > 0 then
  sort_elements(elements, queue, function(id) table.insert(stay, 1, id) end, function(id) ids[#ids + 1] = id end)
end
local natives = {}
if #elements < most then
  natives = reversed(read('LRANGE', KEYS[1], #elements - most, -1) or {}) -- none where the key holds no list
end
for _, id in ipairs(natives) do ids[#ids + 1] = id end
local last = #elements < most and table.remove(ids) or nil
local turns = read_turns(KEYS[2], time)
local lines, first = keys_of_lines(KEYS[2]), turns and turns.first()
if first then -- also if nothing has come: no worker fetches while all threads are busy
  turns.settle(acks_of(redis.call('ZRANGE', KEYS[6], 0, -1), ARGV[3], ARGV[1]))
  turns.write()
  first = turns.first()
end
if #natives == 0 and #ids == 0 then
  return {0, 1}
end
local number = redis.call('INCRBY', lines.number, #ids) - #ids -- one that is not used does no harm
local callers, parked = {}, {}
for i, id in ipairs(ids) do
  local caller, submission = caller_of_task(ARGV[2], id)
  local some = parked[caller]
  if not some then
    some = {}
    parked[caller], callers[#callers + 1] = some, caller
  end
  some[#some + 1] = parked_form(number + i, submission, id)
end

-- 2. Prove that the rest can be done.
redis.call('LTRIM', KEYS[1], 0, -1)
redis.call('LTRIM', KEYS[2], 0, -1)
require_right('RPUSH', KEYS[3], '')
require_right('LPUSH', KEYS[3], '')

-- 3. Add.
local come, scores, known = {}, {}, call_with_all('ZMSCORE', lines.lines, callers)
for i, caller in ipairs(callers) do come[#come + 1] = not known[i] and caller or nil end
if turns then
  turns.load(come)
end
for _, caller in ipairs(come) do
  local start = milliseconds(time)
  if turns then
    turns.join(caller, first)
    start = turns.callers[caller].virtual
  end
  scores[#scores + 1], scores[#scores + 2] = start, caller
end
local pushed = 0
local added, failure = pcall(function()
  for n, caller in ipairs(callers) do
    call_with_all('RPUSH', line_of(KEYS[2], caller), parked[caller])
    pushed = n
  end
  call_with_all('ZADD', lines.lines, scores)
end)
if not added then -- a key holds another type: to ask before would take a command for each line
  for n = 1, pushed do redis.call('LTRIM', line_of(KEYS[2], callers[n]), 0, -1 - #parked[callers[n]]) end
  return redis.error_reply(error_text(failure))
end

-- 4. Move what stays in the queue, and remove.
redis.call('LTRIM', KEYS[2], #elements, -1)
call_with_all('LPUSH', KEYS[2], stay)
if last then
  redis.call('RPUSH', KEYS[2], last)
end
redis.call('LTRIM', KEYS[1], 0, -1 - #natives)
if turns then
  pcall(turns.write) -- turns that are not written harm no task
end
return {#natives, 1}
