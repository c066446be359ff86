-- Put the messages that a dead broker held back at the head of their queue, oldest first, and count the death for each.
--
-- Needs  connection/common
-- KEYS  1 messages (list)   2 acks of that broker (set)   3 deliveries (hash)   4 leases (sorted set)
--       5 released (string)
-- ARGV  1 broker id   2 "expired": only if its lease has run out; "dead": it is known to be gone, and this is the first
--       call of its successor   3 name of the successor's process: its second call does nothing, because the process
--       may hold the messages by then
-- Returns how many messages went back.
--
-- Redis undoes nothing when a script fails. So each command that changes something is tried first with arguments that
-- change nothing: it is refused, or finds a key of another type, before anything has moved.
local known = ''
if ARGV[2] == 'expired' then
  local lease = redis.call('ZSCORE', KEYS[4], ARGV[1])
  if lease and tonumber(lease) > milliseconds(redis.call('TIME')) then
    return 0
  end
else
  known = redis.call('GET', KEYS[5]) or ''
  if string.match(known, '^%S+') == ARGV[3] then
    return 0
  end
end
-- Also the first write, which a server without memory does not refuse, nor then what follows. No id is the key's name.
redis.call('SREM', KEYS[2], KEYS[2])
if ARGV[2] ~= 'expired' then
  redis.call('SET', KEYS[5], known, 'PX', 3600000)
end
local ids = redis.call('SMEMBERS', KEYS[2])
table.sort(ids, function(a, b) return a > b end)
for _, id in ipairs(ids) do
  -- A message that was held for the first time is a suspect, no more: the count goes on when it runs again, alone. A
  -- suspect that then cannot go back does no harm.
  redis.call('HSETNX', KEYS[3], id, 1)
end

-- A push that is refused is refused at the first call, before anything has moved; nothing after it can fail.
call_with_all('LPUSH', KEYS[1], ids)
call_with_all('SREM', KEYS[2], ids)
if ARGV[2] ~= 'expired' then
  redis.call('SET', KEYS[5], ARGV[3] .. ' 0', 'PX', 3600000)
end
redis.pcall('ZREM', KEYS[4], ARGV[1]) -- a lease that stays is found again, and holds nothing
return #ids
