-- Take up to `count` messages off their queue, and hold them. Where the circle has rules, tasks that may not begin are
-- parked in lines of their callers, and tasks of these lines are taken, too.
--
-- Needs  connection/common, queue/changes, queue/messages, queue/hold, queue/lines, queue/turns, queue/choose
-- KEYS  1 messages (list)   2 bodies (hash)   3 acks (set)   4 deliveries (hash)   5 leases (sorted set)
--       6 full (string)   7 room (list)   8 published (sorted set)   9 sequence (string)   10 rules (hash)
--       11 callers (hash)   12 changes (string)
-- ARGV  1 count   2 broker id   3 lease in milliseconds   4 low-water mark of the buffer   5 prefix of details keys
--       6 how many of the messages begin to run at once   7 start of the names of channels for states
--       8 start of a message, up to its time   9 start of the names of acks, up to a broker id   10 queue name
--       11 name of the actor that runs tasks
--       12 how many of the details' fields come before the terms
--       13 how many of these a simple task has at most, see `hold`
--       14 how many of the details' fields the worker reads
-- Returns {1 if the broker had no lease any more, else 0; one row for each message, see `hold`; the server's
-- milliseconds; the number of changes, see `changes_so_far`}; where the circle has rules, behind them {milliseconds
-- after which to try again if tasks wait that may not begin, else 0; fields and notes of the rules that block; 1 if
-- callers take turns, else 0}.
local time = redis.call('TIME')
-- A server without memory refuses this first write: nothing is half done then.
local added = redis.call('ZADD', KEYS[5], 'GT', milliseconds(time) + ARGV[3], ARGV[2])
local count = tonumber(ARGV[1])
local elements = count > 0 and redis.call('LRANGE', KEYS[1], 0, count - 1) or {}
local queue = {
  messages = KEYS[1],
  bodies = KEYS[2],
  published = KEYS[8],
  leases = KEYS[5],
  acks = ARGV[9],
  name = ARGV[10],
  rules = KEYS[10],
  callers = KEYS[11],
  buckets = KEYS[1] .. '.buckets',
}
-- One command for all five, which hardly ever exist.
local there = redis.call('EXISTS', KEYS[4], KEYS[6], KEYS[10], keys_of_lines(KEYS[1]).lines,
  keys_of_turns(KEYS[1]).turns)
local some_died = there > 0 and redis.call('EXISTS', KEYS[4]) == 1
local is_full = there > 0 and redis.call('EXISTS', KEYS[6]) == 1
local left = is_full and redis.call('LLEN', KEYS[1]) - #elements
local keys = {bodies = KEYS[2], acks = KEYS[3], deliveries = some_died and KEYS[4], sequence = KEYS[9]}
local rows, ids, ruled = {}, {}, nil
if count > 0 and there > (some_died and 1 or 0) + (is_full and 1 or 0) then
  -- Functions that only this block uses are made here.
  local turns = read_turns(KEYS[1], time)
  local plan = choose(queue, count, tonumber(ARGV[6]), time, ARGV[5], ARGV[11], turns)
  prepare(queue, plan, time, turns)
  if #plan.elements > 0 then
    local function remove() settle(queue, plan, time, turns) end
    rows, ids = hold(plan.elements, plan.bodies, keys, hold_options(time), remove, plan.submissions)
    if plan.counted and not turns then -- else nothing would take them out again
      local callers, noted = {}, {}
      for i, element in ipairs(plan.elements) do callers[element] = plan.callers[i] end
      for n, row in ipairs(rows) do noted[2 * n - 1], noted[2 * n] = ids[n], callers[row[2] or row[1]] end
      pcall(call_with_all, 'HSET', KEYS[11], noted)
    end
  else
    settle(queue, plan, time, turns)
  end
  for _, one in ipairs(plan.begun) do redis.pcall('SREM', one[1], one[2]) end
  if turns then
    pcall(function() -- turns that are not written harm no task
      local charges = {}
      for n, row in ipairs(rows) do charges[n] = plan.charges[row[2] or row[1]] end
      turns.charge(ids, charges)
      turns.write()
    end)
  end
  left = is_full and redis.call('LLEN', KEYS[1])
  ruled = {plan.wait, plan.blocks, turns and 1 or 0}
elseif #elements > 0 then
  redis.call('LTRIM', KEYS[1], 0, -1) -- removes nothing, and proves that the elements can be removed
  rows = hold(
    elements,
    bodies_of(elements, queue),
    keys,
    hold_options(time),
    function() redis.call('LTRIM', KEYS[1], #elements, -1) end
  )
end
if is_full and left < tonumber(ARGV[4]) then
  -- Functions that only this block uses are made here.
  tell_of_room(KEYS[6], KEYS[7])
end
return {added, rows, milliseconds(time), changes_so_far(KEYS[12]), ruled}
