-- Give the messages that no worker holds back to the head of the native list, in the order they were taken.
--
-- KEYS  1 native list   2 messages (list)   3 bodies (hash)   4 deliveries (hash)   5 full (string)
--       6 published (sorted set)   7 on: acks of brokers that are gone (sets)
-- ARGV  1 name of the actor whose messages are native tasks   2 prefix of details keys
--       3 time for `updatedAt`
-- Returns how many tasks went back. What is more than a task's id, and could not come back as it was, stays:
-- messages of other actors, and of groups and pipelines.
local function is_plain(body)
  if type(body) ~= 'table' or body.actor_name ~= ARGV[1] then return false end
  for _, part in ipairs({'args', 'kwargs', 'options'}) do
    if type(body[part]) ~= 'table' then return false end
  end
  return #body.args == 1 and type(body.args[1]) == 'string' and next(body.kwargs) == nil and next(body.options, next(body.options)) == nil
end

local held, ids, others = {}, {}, {}

local function sort(name, body)
  local readable, message = pcall(cjson.decode, body)
  if readable and is_plain(message) then
    held[#held + 1] = {name, message.args[1]}
  else
    others[#others + 1] = name
  end
end

for _, name in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  local body = redis.call('HGET', KEYS[3], name)
  if body then
    sort(name, body)
  else
    ids[#ids + 1] = name -- no worker has ever held it: it is a task's id
  end
end
for _, name in ipairs(redis.call('ZRANGE', KEYS[6], 0, -1)) do
  local body = redis.call('HGET', KEYS[3], name)
  if body then
    sort(name, body)
  end
end
for i = 7, #KEYS do
  for _, name in ipairs(redis.call('SMEMBERS', KEYS[i])) do
    sort(name, redis.call('HGET', KEYS[3], name) or '')
  end
end
table.sort(held, function(a, b) return a[1] < b[1] end)
for i = #ids, 1, -1 do
  redis.call('LPUSH', KEYS[1], ids[i])
end
for i = #held, 1, -1 do
  redis.call('LPUSH', KEYS[1], held[i][2])
end
redis.call('DEL', KEYS[2], unpack(KEYS, 5))
for _, task in ipairs(held) do
  local details = ARGV[2] .. task[2]
  if redis.pcall('HGET', details, 'status') == 'processing' then -- its worker died, or was made to stop
    redis.call('HSET', details, 'status', 'pending', 'updatedAt', ARGV[3])
  end
  local deaths = redis.call('HGET', KEYS[4], task[1])
  if deaths and tonumber(deaths) > 0 then
    redis.call('HSET', KEYS[4], ':' .. task[2], deaths) -- whoever makes a message of it again counts on
  end
  redis.call('HDEL', KEYS[3], task[1])
  redis.call('HDEL', KEYS[4], task[1])
end
for _, name in ipairs(others) do
  redis.call('RPUSH', KEYS[2], name)
end
return #held + #ids
