-- Bring messages with their tasks' details, and hold them under this broker's lease. `fetch.lua` or `claim.lua` stands
-- before this, and says which: `ids`, `bodies` or `tasks`, `added` to the leases, `time`.
--
-- KEYS  1 messages (list)   2 bodies (hash)   3 acks (set)   4 deliveries (hash)
--       5 leases (sorted set)   6 full (string)   7 room (list)
-- ARGV  2 broker id   3 lease in milliseconds   4 low-water mark of the buffer
--       5 prefix of details keys   6 how many of the messages begin to run at once
--       7 start of the names of channels for states   9 on: names of the details' fields
-- Returns {1 if the broker had no lease any more, else 0; one {message id, task id, body, deaths, details, 1 if
-- cancelled, else 0} each}; a message that has just been made is told by its task's id (else nil), any other by its body
-- (else nil); details is a list of values (nil where absent), or the text of the server's error where the details key
-- holds no hash.
-- RFC 3339 in UTC, with microseconds. The server's clock: this script may have waited for a message.
local function timestamp()
  local days, seconds = math.floor(time[1] / 86400) + 719468, time[1] % 86400 -- since 0000-03-01
  local day = days % 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  year = year + 400 * math.floor(days / 146097) + (month >= 10 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month < 10 and month + 3 or month - 9, day,
    math.floor(seconds / 3600), math.floor(seconds / 60) % 60, seconds % 60, time[2])
end

redis.call('SADD', KEYS[3], unpack(ids))
local deaths = redis.call('HMGET', KEYS[4], unpack(ids))
local now_running = tonumber(ARGV[6])
local fields = {unpack(ARGV, 9)}
local asked = #fields
fields[asked + 1], fields[asked + 2] = 'status', 'error'
local messages = {}
for i, id in ipairs(ids) do
  local details, cancelled, task = false, 0, tasks[i]
  local carried
  if not task then
    local readable, body = pcall(cjson.decode, bodies[i])
    if readable and type(body) == 'table' and type(body.args) == 'table' and type(body.args[1]) == 'string' then
      task, carried = body.args[1], type(body.kwargs) == 'table' and body.kwargs.details
    end
  end
  if task then
    local key = ARGV[5] .. task
    if type(carried) == 'table' and redis.call('EXISTS', key) == 0 then -- sent by a broker that is not ours
      for name, value in pairs(carried) do
        if type(value) == 'string' then -- an error here would leave all of this fetch held, and undone
          redis.call('HSET', key, name, value)
        end
      end
    end
    details = redis.pcall('HMGET', key, unpack(fields))
    if details.err then
      details = details.err
    else
      if details[asked + 1] == 'error' and details[asked + 2] == 'cancelled' then
        cancelled = 1
      elseif i <= now_running and details[1] and not deaths[i] then
        redis.call('HSET', key, 'status', 'processing', 'updatedAt', timestamp())
        redis.pcall('PUBLISH', ARGV[7] .. key, 'processing')
      end
      details[asked + 1], details[asked + 2] = nil, nil
    end
  end
  messages[i] = {id, tasks[i] or false, bodies[i], tonumber(deaths[i] or 0), details, cancelled}
end
return {added, messages}
