-- Hold messages again whose place on the server somebody has deleted: the broker runs them, and they are nowhere else.
--
-- Needs  connection/common, queue/keys, queue/messages, queue/lines
-- KEYS  1 leases (sorted set)   2 acks of that broker (set)   3 bodies (hash)   4 messages (list)
--       5 published (sorted set)   6 delayed messages (sorted set)
-- ARGV  1 broker id   2 start of the names of acks, up to a broker id   3 queue
--       then for each message: its id, its body
-- Returns for each message: 1 if the broker holds it now, else 0. A message without a body that is not in the acks has
-- ended.
redis.call('ZREM', KEYS[1], '') -- a server without memory refuses neither this write nor those after it
local lease = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
local results = {}
if lease <= milliseconds(redis.call('TIME')) then
  for _ = 4, #ARGV, 2 do
    results[#results + 1] = 0 -- another broker may hold it, whose lease is not there either
  end
  return results
end

local waiting, places -- are read when a message needs them
local function is_anywhere(id)
  if not waiting then
    local brokers = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf')
    places = {published = KEYS[5], delayed_messages = KEYS[6], acks = acks_of(brokers, ARGV[2], ARGV[3])}
    waiting = {}
    for _, element in ipairs(redis.call('LRANGE', KEYS[4], 0, -1)) do waiting[element] = true end
    for _, element in ipairs(messages_in_lines(KEYS[4])) do waiting[element] = true end
  end
  return waiting[id] or is_elsewhere(id, places)
end

for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  local held = redis.call('SISMEMBER', KEYS[2], id) == 1
  local body = redis.call('HEXISTS', KEYS[3], id) == 1
  if held and not body then
    redis.call('HSET', KEYS[3], id, ARGV[i + 1])
  elseif body and not held and not is_anywhere(id) then
    redis.call('SADD', KEYS[2], id)
    held = true
  end
  results[#results + 1] = held and 1 or 0
end
return results
