-- Put what a dead broker held back at the head of its queue, oldest first, and count the death against it.
--
-- KEYS  1 messages (list)   2 acks of that broker (set)   3 deliveries (hash)   4 leases (sorted set)
--       5 released (string)
-- ARGV  1 broker id   2 "expired": only if its lease has run out; "dead": it is known to be gone, and this is its
--       successor's first word   3 name of that process: what it says once more, it may hold the messages by then
-- Returns how many messages went back.
if ARGV[2] == 'expired' then
  local lease = redis.call('ZSCORE', KEYS[4], ARGV[1])
  local time = redis.call('TIME')
  if lease and tonumber(lease) > time[1] * 1000 + math.floor(time[2] / 1000) then
    return 0
  end
else
  if string.match(redis.call('GET', KEYS[5]) or '', '^%S+') == ARGV[3] then
    return 0
  end
  redis.call('SET', KEYS[5], ARGV[3] .. ' 0', 'PX', 3600000)
end
local ids = redis.call('SMEMBERS', KEYS[2])
table.sort(ids, function(a, b) return a > b end)
for _, id in ipairs(ids) do
  -- Who was held for the first time is suspected, no more: the count goes on when it runs again, alone.
  redis.call('HSETNX', KEYS[3], id, 1)
  redis.call('LPUSH', KEYS[1], id)
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[4], ARGV[1])
return #ids
