-- Find messages that are nowhere: they have a body, and neither wait nor are held by a broker with a lease. Put back
-- those that were nowhere before, too.
--
-- Needs  connection/common, queue/keys, queue/lines
-- KEYS  1 messages (list)   2 bodies (hash)   3 deliveries (hash)   4 leases (sorted set)   5 published (sorted set)
--       6 delayed messages (sorted set)
-- ARGV  1 start of the names of acks, up to a broker id   2 queue   3 how many messages are read, at most: the server
--       has others to serve   4 on: ids of messages that an earlier call found nowhere
-- Returns {ids of the messages that are nowhere; how many of them went back}.
local most = tonumber(ARGV[3])
local bodies, held = redis.call('HLEN', KEYS[2]), 0
local acks = acks_of(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', '+inf'), ARGV[1], ARGV[2])
for _, key in ipairs(acks) do
  held = held + redis.call('SCARD', key)
end
local others = redis.call('LLEN', KEYS[1]) + redis.call('ZCARD', KEYS[5]) + redis.call('ZCARD', KEYS[6])
if bodies <= held or bodies > most or others > most then
  return {{}, 0} -- all are held; or there are too many
end
local stray = {}
for _, id in ipairs(redis.call('HKEYS', KEYS[2])) do
  stray[id] = true
end
local function found(ids)
  for _, id in ipairs(ids) do
    stray[id] = nil
  end
end
found(redis.call('LRANGE', KEYS[1], 0, -1))
found(messages_in_lines(KEYS[1]))
found(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', '+inf'))
found(redis.call('ZRANGEBYSCORE', KEYS[6], '-inf', '+inf'))
for _, key in ipairs(acks) do
  found(redis.call('SMEMBERS', key))
end

local ids, again = {}, {}
for id in pairs(stray) do
  ids[#ids + 1] = id
end
for i = 4, #ARGV do
  if stray[ARGV[i]] then
    again[#again + 1] = ARGV[i]
  end
end
table.sort(again, function(a, b) return a > b end) -- oldest first, once all are pushed
for _, id in ipairs(again) do
  redis.call('HSETNX', KEYS[3], id, 1) -- its process may have died of it
end
call_with_all('LPUSH', KEYS[1], again)
return {ids, #again}
