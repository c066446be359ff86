-- Bring up to `count` messages with their tasks' details, and hold them under this broker's lease.
--
-- KEYS  1 messages (list)   2 bodies (hash)   3 acks (set)   4 deliveries (hash)
--       5 leases (sorted set)   6 full (string)   7 room (list)
-- ARGV  1 count   2 broker id   3 lease in milliseconds   4 low-water mark of the buffer
--       5 prefix of details keys   6 how many of the messages begin to run at once   7 time for `updatedAt`
--       8 start of the names of channels for states   9 on: names of the details' fields
-- Returns one {message id, body, deaths, details, 1 if cancelled, else 0} each; details is a list of values
-- (nil where absent), or the text of the server's error where the details key holds no hash.
local time = redis.call('TIME')
-- First of all a write that a server without memory refuses: nothing is half done then.
redis.call('ZADD', KEYS[5], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[2])

local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if redis.call('LLEN', KEYS[1]) < tonumber(ARGV[4]) and redis.call('DEL', KEYS[6]) == 1 then
  redis.call('RPUSH', KEYS[7], '1')
  redis.call('PEXPIRE', KEYS[7], 10000)
end
if not ids then
  return {}
end

redis.call('SADD', KEYS[3], unpack(ids))
local bodies = redis.call('HMGET', KEYS[2], unpack(ids))
local deaths = redis.call('HMGET', KEYS[4], unpack(ids))
local now_running = tonumber(ARGV[6])
local fields = {unpack(ARGV, 9)}
local asked = #fields
fields[asked + 1], fields[asked + 2] = 'status', 'error'
local messages = {}
for i, id in ipairs(ids) do
  if not bodies[i] then
    redis.call('SREM', KEYS[3], id) -- purged by dramatiq's tools: there is nothing left to run
  else
    local details, cancelled = false, 0
    local readable, body = pcall(cjson.decode, bodies[i])
    if readable and type(body) == 'table' and type(body.args) == 'table' and type(body.args[1]) == 'string' then
      local key = ARGV[5] .. body.args[1]
      local carried = type(body.kwargs) == 'table' and body.kwargs.details
      if type(carried) == 'table' and redis.call('EXISTS', key) == 0 then -- sent by a broker that is not ours
        for name, value in pairs(carried) do
          redis.call('HSET', key, name, value)
        end
      end
      details = redis.pcall('HMGET', key, unpack(fields))
      if details.err then
        details = details.err
      else
        if details[asked + 1] == 'error' and details[asked + 2] == 'cancelled' then
          cancelled = 1
        elseif #messages < now_running and details[1] and not deaths[i] then
          redis.call('HSET', key, 'status', 'processing', 'updatedAt', ARGV[7])
          redis.pcall('PUBLISH', ARGV[8] .. key, 'processing')
        end
        details[asked + 1], details[asked + 2] = nil, nil
      end
    end
    messages[#messages + 1] = {id, bodies[i], tonumber(deaths[i] or 0), details, cancelled}
  end
end
return messages
