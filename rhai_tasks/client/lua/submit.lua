-- Submit tasks, all of one call or none: write their details, and hand them over now or after a delay.
-- A call that is repeated, because its reply got lost, is done once.
--
-- KEYS  1 calls of this client that it may repeat (sorted set)   2 native list   3 messages (list)
--       4 registry (set)   5 delayed (sorted set)   6 delayed messages (sorted set)   7 wake (list)
-- ARGV  1 number of the call   2 the lowest number that may be repeated   3 "1": the ids must be free
--       4 delay in milliseconds   5 "native", "dramatiq", or "urgent": before all that waits in dramatiq
--       6 queue name   7 prefix of details keys   8 start of the names of channels for states
--       then for each task: its id, how many names and values follow, names and values of its fields
-- Returns the ids that are taken; nothing was submitted then.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {}
end
if ARGV[3] == '1' then
  local taken = {}
  local i = 9
  while i <= #ARGV do
    if redis.call('EXISTS', ARGV[7] .. ARGV[i]) == 1 then
      taken[#taken + 1] = ARGV[i]
    end
    i = i + 2 + ARGV[i + 1]
  end
  if #taken > 0 then
    return taken
  end
end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], 3600000)

local delay, due = tonumber(ARGV[4]), nil
if delay > 0 then
  local time = redis.call('TIME')
  due = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + delay)
end
local native = ARGV[5] == 'native'
local i = 9
while i <= #ARGV do
  local id, count = ARGV[i], tonumber(ARGV[i + 1])
  local details = ARGV[7] .. id
  redis.call('DEL', details) -- of an earlier run: its outcome, and when it was to expire
  local last = i + 1 + count
  for first = i + 2, last, 1000 do -- Lua has no room for many thousand arguments
    redis.call('HSET', details, unpack(ARGV, first, math.min(first + 999, last)))
  end
  if delay > 0 then
    redis.call('ZADD', native and KEYS[5] or KEYS[6], due, id)
  elseif native then
    redis.call('LPUSH', KEYS[2], id)
  else
    redis.call(ARGV[5] == 'urgent' and 'LPUSH' or 'RPUSH', KEYS[3], id)
  end
  redis.pcall('PUBLISH', ARGV[8] .. details, 'pending')
  i = last + 1
end
if not native or delay > 0 then
  redis.call('SADD', KEYS[4], ARGV[6])
end
if delay > 0 then -- a bridge may sleep until something later
  redis.call('LPUSH', KEYS[7], '1')
  redis.call('LTRIM', KEYS[7], 0, 0)
  redis.call('PEXPIRE', KEYS[7], 10000)
end
return {}
