-- Remove what waits in a circle, some hundred tasks at a time; their clients are told that they were cancelled.
--
-- KEYS  1 native list   2 messages (list)   3 bodies (hash)   4 deliveries (hash)   5 delayed (sorted set)
--       6 delayed messages (sorted set)   7 published (sorted set)
-- ARGV  1 how many   2 prefix of details keys   3 time for `updatedAt`   4 start of the names of channels for states
-- Returns how many were removed; 0: nothing is left.
local ids = redis.call('LPOP', KEYS[1], ARGV[1]) or {}
local names = redis.call('LPOP', KEYS[2], ARGV[1]) or {}
local delayed = redis.call('ZPOPMIN', KEYS[5], ARGV[1])
for i = 1, #delayed, 2 do ids[#ids + 1] = delayed[i] end
for _, key in ipairs({KEYS[6], KEYS[7]}) do
  local popped = redis.call('ZPOPMIN', key, ARGV[1])
  for i = 1, #popped, 2 do names[#names + 1] = popped[i] end
end
local removed = #ids + #names
for _, name in ipairs(names) do
  local text = redis.call('HGET', KEYS[3], name)
  local readable, body = pcall(cjson.decode, text)
  if not text then -- no worker has ever held it: it is a task's id
    ids[#ids + 1] = name
  elseif readable and type(body) == 'table' and type(body.args) == 'table' and type(body.args[1]) == 'string' then
    ids[#ids + 1] = body.args[1]
  end
  redis.call('HDEL', KEYS[3], name)
  redis.call('HDEL', KEYS[4], name)
end
for _, id in ipairs(ids) do
  local details = ARGV[2] .. id
  local status = redis.pcall('HGET', details, 'status')
  if status == 'pending' or status == 'processing' or not status and redis.call('EXISTS', details) == 1 then
    redis.call('HSET', details, 'status', 'error', 'error', 'cancelled', 'updatedAt', ARGV[3])
    redis.pcall('PUBLISH', ARGV[4] .. details, 'error cancelled')
  end
end
return removed
