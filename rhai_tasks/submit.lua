-- Submit tasks, all of one call or none: write their details, and hand them over now or after a delay.
-- A call that is repeated, because its reply got lost, is done once.
--
-- KEYS  1 calls of this client that it may repeat (sorted set)   2 native list   3 messages (list)
--       4 bodies (hash)   5 sequence (string)   6 registry (set)   7 delayed (sorted set)
--       8 delayed messages (sorted set)   9 wake (list)
-- ARGV  1 number of the call   2 the lowest number that may be repeated   3 "1": the ids must be free
--       4 delay in milliseconds   5 "native", "dramatiq", or "urgent": before all that waits in dramatiq
--       6 start of a message, up to its argument   7 queue name   8 prefix of details keys
--       9 start of the names of channels for states
--       then for each task: its id, how many names and values follow, names and values of its fields
-- Returns the ids that are taken; nothing was submitted then.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {}
end
if ARGV[3] == '1' then
  local taken = {}
  local i = 10
  while i <= #ARGV do
    if redis.call('EXISTS', ARGV[8] .. ARGV[i]) == 1 then
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

local time = redis.call('TIME')
local delay = tonumber(ARGV[4])
local due = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + delay)
-- By the clock, and never backwards, as `take.lua` does.
local last = time[1] * 1000000 + time[2]
if ARGV[5] ~= 'native' then
  last = math.max(tonumber(redis.call('GET', KEYS[5]) or 0), last)
end
local i = 10
while i <= #ARGV do
  local id, count = ARGV[i], tonumber(ARGV[i + 1])
  local details = ARGV[8] .. id
  redis.call('DEL', details) -- of an earlier run: its outcome, and when it was to expire
  redis.call('HSET', details, unpack(ARGV, i + 2, i + 1 + count))
  if ARGV[5] == 'native' then
    if delay == 0 then
      redis.call('LPUSH', KEYS[2], id)
    else
      redis.call('ZADD', KEYS[7], due, id)
    end
  else
    last = last + 1
    local name = string.format('%.0f', last)
    redis.call('HSET', KEYS[4], name, ARGV[6] .. cjson.encode(id)
      .. '],"options":{"redis_message_id":"' .. name .. '"},"message_id":"' .. name .. '"}')
    if delay > 0 then
      redis.call('ZADD', KEYS[8], due, name)
    else
      redis.call(ARGV[5] == 'urgent' and 'LPUSH' or 'RPUSH', KEYS[3], name)
    end
  end
  redis.pcall('PUBLISH', ARGV[9] .. details, 'pending')
  i = i + 2 + count
end
if ARGV[5] ~= 'native' then
  redis.call('SET', KEYS[5], string.format('%.0f', last))
end
if ARGV[5] ~= 'native' or delay > 0 then
  redis.call('SADD', KEYS[6], ARGV[7])
end
if delay > 0 then -- a bridge may sleep until something later
  redis.call('LPUSH', KEYS[9], '1')
  redis.call('LTRIM', KEYS[9], 0, 0)
  redis.call('PEXPIRE', KEYS[9], 10000)
end
return {}
