-- Hand over delayed tasks and messages that are due, earliest first, by the server's clock. Messages that dramatiq's
-- own brokers have delayed are taken over first: their delay queues have no worker here.
--
-- Whatever the server refuses, nothing is lost and nothing is handed over twice: a removal is tried on nothing at all
-- before anything is written. One circle's keys, of whatever type, hold no other circle up.
--
-- Needs  connection/common
-- KEYS  for each circle: delayed (sorted set), native list, delayed messages (sorted set), messages (list),
--       bodies (hash), dramatiq's delay queue (list), its bodies (hash)
-- ARGV  1 how many of each are moved at most: the server has others to serve   2 "oldest": the earliest is pushed
--       first, as lists are taken from their tail
-- Returns {how many were handed over, milliseconds until the next is due, -1: nothing is delayed}; an error, after
-- everything that could be done, if the server refuses a command.
local now = milliseconds(redis.call('TIME'))
local moved, wait, failure = 0, -1, nil

local function sleep(duration)
  wait = wait < 0 and duration or math.min(wait, duration)
end

local function refused(reply)
  if is_error(reply) then
    failure = failure or not is_wrong_type(reply) and reply.err or nil
    return true
  end
  return false
end

-- Say whether the command `remove` would succeed: try it with a name that the command `get` does not find.
local function can_remove(get, remove, key)
  local name = '-'
  local found = redis.pcall(get, key, name)
  while type(found) == 'string' do
    name = name .. '-'
    found = redis.pcall(get, key, name)
  end
  return not refused(found) and not refused(redis.pcall(remove, key, name))
end

local function eta(body)
  local readable, message = pcall(cjson.decode, body)
  local options = readable and type(message) == 'table' and message.options
  local due = type(options) == 'table' and options.eta
  if type(due) ~= 'number' or due ~= due then
    return now -- a worker will say what is wrong with the message
  end
  return math.min(math.max(due, 0), 1e15)
end

local function take_over(delayed, bodies, queue, queue_bodies)
  local there = redis.pcall('EXISTS', queue_bodies)
  if refused(there) then
    return sleep(1000)
  elseif there == 0 then
    local names = redis.pcall('LLEN', queue)
    if type(names) == 'number' and names > 0 then
      redis.pcall('DEL', queue) -- they name nothing any more
    end
    return
  end
  local some = redis.pcall('HRANDFIELD', queue_bodies, ARGV[1], 'WITHVALUES')
  if refused(some) or not can_remove('HGET', 'HDEL', queue_bodies) then
    return sleep(10000)
  end
  for i = 1, #some, 2 do
    local id, body = some[i], some[i + 1]
    local name = id
    while type(redis.pcall('HGET', bodies, name)) == 'string' do
      name = name .. '-' -- another message has that one
    end
    if refused(redis.pcall('HSET', bodies, name, body)) then
      return sleep(1000)
    end
    if refused(redis.pcall('ZADD', delayed, string.format('%.0f', eta(body)), name)) then
      redis.pcall('HDEL', bodies, name)
      return sleep(1000)
    end
    redis.call('HDEL', queue_bodies, id)
  end
  sleep(0)
end

local function move(from, to, push)
  local due = redis.pcall('ZRANGEBYSCORE', from, '-inf', now, 'LIMIT', 0, ARGV[1])
  if refused(due) or #due > 0 and not can_remove('ZSCORE', 'ZREM', from) then
    return sleep(1000)
  end
  if push == 'LPUSH' and ARGV[2] ~= 'oldest' then -- the last one pushed is the first to be taken
    due = reversed(due)
  end
  for _, id in ipairs(due) do
    if refused(redis.pcall(push, to, id)) then -- the key holds no list, or may not be written
      return sleep(1000)
    end
    redis.call('ZREM', from, id)
    moved = moved + 1
  end
  local first = redis.pcall('ZRANGE', from, 0, 0, 'WITHSCORES')
  if not refused(first) and first[2] then
    sleep(math.max(first[2] - now, 0))
  end
end

for i = 1, #KEYS, 7 do
  take_over(KEYS[i + 2], KEYS[i + 4], KEYS[i + 5], KEYS[i + 6])
  move(KEYS[i], KEYS[i + 1], 'LPUSH')
  move(KEYS[i + 2], KEYS[i + 3], 'RPUSH')
end
if failure then
  return redis.error_reply(failure)
end
return {moved, math.ceil(math.min(wait, 1e9))}
