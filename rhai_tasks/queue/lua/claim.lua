-- Hold those messages of a delivery of RabbitMQ that no worker holds.
--
-- Needs  connection/common, queue/hold
-- KEYS, ARGV  as in `fetch.lua`, but ARGV 1: message ids, one a line
-- Returns  as `fetch.lua` where there are no rules, without changes and simple tasks.
local time = redis.call('TIME')
-- A server without memory refuses this first write: nothing is half done then.
local added = redis.call('ZADD', KEYS[5], 'GT', milliseconds(time) + ARGV[3], ARGV[2])
redis.call('ZREM', KEYS[8], '') -- removes nothing, and proves that the messages can be removed
local ids, bodies = {}, {}
for id in string.gmatch(ARGV[1], '[^\n]+') do
  -- A message that is not published any more has ended, is held by another worker, or will be published again.
  local body = redis.call('ZSCORE', KEYS[8], id) and redis.call('HGET', KEYS[2], id)
  if body then
    ids[#ids + 1], bodies[#bodies + 1] = id, body
  end
end
local left = redis.call('LLEN', KEYS[1]) + redis.call('ZCARD', KEYS[8]) - #ids
local rows = {}
if #ids > 0 then
  rows = hold(
    ids,
    bodies,
    {bodies = KEYS[2], acks = KEYS[3], deliveries = redis.call('EXISTS', KEYS[4]) == 1 and KEYS[4]},
    hold_options(time),
    function() call_with_all('ZREM', KEYS[8], ids) end
  )
end
if left < tonumber(ARGV[4]) then
  tell_of_room(KEYS[6], KEYS[7])
end
return {added, rows, milliseconds(time)}
