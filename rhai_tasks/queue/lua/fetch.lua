-- Take up to `count` messages off their queue, and hold them.
--
-- Needs  connection/common, queue/messages, queue/hold, queue/rules
-- KEYS  1 messages (list)   2 bodies (hash)   3 acks (set)   4 deliveries (hash)   5 leases (sorted set)
--       6 full (string)   7 room (list)   8 published (sorted set)   9 sequence (string)   10 rules (hash)
-- ARGV  1 count   2 broker id   3 lease in milliseconds   4 low-water mark of the buffer   5 prefix of details keys
--       6 how many of the messages begin to run at once   7 start of the names of channels for states
--       8 start of a message, up to its argument   9 start of the names of acks, up to a broker id   10 queue name
--       11 name of the actor that runs tasks
--       12 how many of the details' fields come before the terms
--       13 on: names of the details' fields, the last three of which are status, error, submission
-- Returns {1 if the broker had no lease any more, else 0; one row for each message, see `hold`; the server's
-- milliseconds}; where the circle has rules, behind them {milliseconds after which to try again if tasks wait that may
-- not begin, else 0; fields and notes of the rules that block}.
local time = redis.call('TIME')
-- A server without memory refuses this first write: nothing is half done then.
local added = redis.call('ZADD', KEYS[5], 'GT', milliseconds(time) + ARGV[3], ARGV[2])
local count = tonumber(ARGV[1])
local elements = count > 0 and redis.call('LRANGE', KEYS[1], 0, count - 1) or {}
local left = #elements < count and 0 or redis.call('LLEN', KEYS[1]) - #elements
local rows, ruled = {}, nil
if #elements > 0 then
  -- One command for both, which hardly ever exist.
  local there = redis.call('EXISTS', KEYS[4], KEYS[10])
  local has_rules = there == 2 or there == 1 and redis.call('EXISTS', KEYS[10]) == 1
  local some_died = there == 2 or there == 1 and not has_rules
  if has_rules then
    local rules = read_rules(KEYS[10])
    ruled = {0, blocks_of(rules)}
    if rules['pause circle'] then
      return {added, rows, milliseconds(time), {250, {}}}
    end
  end
  redis.call('LTRIM', KEYS[1], 0, -1) -- removes nothing, and proves that the elements can be removed
  rows = hold(
    elements,
    bodies_of(elements, {
      messages = KEYS[1],
      bodies = KEYS[2],
      published = KEYS[8],
      leases = KEYS[5],
      acks = ARGV[9],
      name = ARGV[10],
    }),
    {bodies = KEYS[2], acks = KEYS[3], deliveries = some_died and KEYS[4], sequence = KEYS[9]},
    hold_options(time),
    function() redis.call('LTRIM', KEYS[1], #elements, -1) end
  )
end
if left < tonumber(ARGV[4]) then
  tell_of_room(KEYS[6], KEYS[7])
end
return {added, rows, milliseconds(time), ruled}
