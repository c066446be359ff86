-- Submit tasks, all of one call or none: write their details, and hand them over now or after a delay. A call that is
-- repeated, because its reply got lost, is done once.
--
-- Needs  connection/common, queue/keys, queue/delays, queue/submission, queue/waiting
-- KEYS  1 calls of this client that it may repeat (sorted set)   2 native list   3 messages (list)
--       4 registry (set)   5 delayed (sorted set)   6 delayed messages (sorted set)   7 wake (list)
-- ARGV  1 number of the call   2 the lowest number that may be repeated   3 "1": the ids must be free
--       4 delay in milliseconds   5 "native", "dramatiq", or "urgent": before all that waits in dramatiq
--       6 queue name   7 prefix of details keys   8 start of the names of channels for states   9 circle
--       10 prefix of native lists   11 namespace   12 milliseconds within which the tasks must begin, or nothing
--       13 stored scripts (hash) if some of the tasks name one, or are to have its source, or nothing
--       then for each task: its id, how many names and values follow, names and values of its fields
-- Returns {"", a reference to a script that is not stored}; or ids that are taken, by a task if they must be free, or
-- by a message; or, if more would wait than a limit allows, {{caller, how many of its tasks may wait, 1}}, without the
-- 1: of the circle. Nothing was submitted then. Of an id that is there several times the last one counts.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {}
end

-- Find the script that a task names. `first`, `last`: positions in ARGV of the task's fields. Returns the fields to
-- write in the place of a name, and of a script that is empty; nil and the reference if nothing is stored there.
local function look_up(scripts, first, last)
  local reference, wants_source
  for place = first, last, 2 do
    if ARGV[place] == FIELD.scriptRef then
      reference = ARGV[place + 1]
    elseif ARGV[place] == FIELD.script then
      wants_source = true
    end
  end
  local hash = string.sub(reference, 8)
  if string.sub(reference, 1, 1) == '@' then
    hash = redis.call('HGET', scripts .. '.names', string.sub(reference, 2))
  end
  local found = {FIELD.scriptRef, 'sha256:' .. (hash or '')}
  if hash and wants_source then
    found[3], found[4] = FIELD.script, redis.call('HGET', scripts, hash)
  end
  if not hash or found[4] == false then
    return nil, reference
  end
  return found
end

-- 1. Read.
local unique = ARGV[3] == '1'
local ids, fields, taken = {}, {}, {}
local has_rules -- nil: not known yet

-- Say whether a task has details. The first call also asks, in the same command, whether the circle has rules.
local function exists(id)
  if has_rules == nil then
    local there
    there, has_rules = exists_beside_rules(ARGV[7] .. id, KEYS[3])
    return there
  end
  return redis.call('EXISTS', ARGV[7] .. id) == 1
end

local i = 14
while i <= #ARGV do
  local id, count = ARGV[i], tonumber(ARGV[i + 1])
  if not fields[id] then
    ids[#ids + 1] = id
    if unique and exists(id) then
      taken[#taken + 1] = id
    end
  elseif unique then
    taken[#taken + 1] = id
  end
  fields[id] = {i + 2, i + 1 + count}
  i = i + 2 + count
end
if #taken > 0 then
  return taken
end
local scripts = {} -- by task id, fields that the server has looked up
if ARGV[13] ~= '' then
  for _, id in ipairs(ids) do
    local missing
    scripts[id], missing = look_up(ARGV[13], fields[id][1], fields[id][2])
    if missing then
      return {'', missing}
    end
  end
end
local known = {}
local is_delayed_message = ARGV[4] ~= '0' and ARGV[5] ~= 'native'
for _, id in ipairs(ids) do
  local details = ARGV[7] .. id
  if is_delayed_message and redis.call('HEXISTS', keys_of(KEYS[3]).bodies, id) == 1 then
    return {id} -- the sorted set of delayed messages has each name once
  end
  if not unique and exists(id) then
    known[id] = read('HMGET', details, FIELD.status, FIELD.error, FIELD.circle) or {}
  end
end
local waiting = {}
if has_rules then
  -- Functions that only this block uses are made here.
  local callers = {}
  for _, id in ipairs(ids) do
    local caller = caller_in(fields[id][1], fields[id][2])
    callers[caller] = callers[caller] or {}
    table.insert(callers[caller], id)
  end
  local refusal
  waiting, refusal = sets_of_waiting(KEYS[2], KEYS[3], ARGV[7], ids, callers)
  if refusal then
    return {refusal}
  end
end
-- 2. Prove that the rest can be done. A server without memory refuses this first write.
redis.call('ZADD', KEYS[1], 'XX', 0, '')
local native, delay = ARGV[5] == 'native', tonumber(ARGV[4])
local push = (native or ARGV[5] == 'urgent') and 'LPUSH' or 'RPUSH'
local list, delayed = native and KEYS[2] or KEYS[3], native and KEYS[5] or KEYS[6]
local now = (delay > 0 or ARGV[12] ~= '') and milliseconds(redis.call('TIME'))
local due = delay > 0 and string.format('%.0f', now + delay)
local start_before = ARGV[12] ~= '' and string.format('%.3f', (now + ARGV[12]) / 1000)
if not native or due then
  redis.call('SADD', KEYS[4], ARGV[6])
end
for _, one in ipairs(waiting) do call_with_all('SADD', one[1], one[2]) end -- ids that are not submitted do no harm
if next(known) then
  local of_message = take_out(known, push, list, delayed, KEYS[1] .. '.', ARGV[9], ARGV[10], ARGV[11])
  if of_message then
    return {of_message}
  end
end

-- 3. Submit. If any task is refused, it is the first one.
local function hand_over(call, id)
  return due and call('ZADD', delayed, due, id) or call(push, list, id)
end

local submission = string.match(KEYS[1], '[^.]*$') .. '.' .. ARGV[1]
for n, id in ipairs(ids) do
  local details = ARGV[7] .. id
  local first, last = unpack(fields[id])
  if known[id] then
    redis.call('DEL', details) -- the outcome of an earlier run, and when the details were to expire
  end
  call_with_all('HSET', details, ARGV, first, last)
  if scripts[id] then
    redis.call('HSET', details, unpack(scripts[id]))
  end
  if start_before then
    redis.call('HSET', details, FIELD.startBefore, start_before)
  end
  if known[id] then -- a run of the earlier submission may still go on: it must not write its outcome
    redis.call('HSET', details, FIELD.submission, submission)
  end
  if n == 1 then
    local reply = hand_over(redis.pcall, id)
    if is_error(reply) then
      redis.pcall('DEL', details)
      return reply
    end
  else
    hand_over(redis.call, id)
  end
  redis.pcall('PUBLISH', ARGV[8] .. details, WORD.pending)
end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1])
redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2])
redis.pcall('PEXPIRE', KEYS[1], 3600000)
if due then
  wake(KEYS[7])
end
return {}
