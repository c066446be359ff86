-- Put held messages that did not run to an end back into their queue, `pending` again; once, however often the call is
-- repeated: by the second time the worker may hold the same message again.
--
-- Needs  connection/common, queue/keys, queue/delays
-- KEYS  1 messages (list)   2 acks (set)   3 deliveries (hash)   4 released (string)
-- ARGV  1 time for `updatedAt`   2 start of the names of channels for states   3 name of the process, never used again
--       then for each message, oldest first: message id, details key, "1": its delivery was counted though
--       its process did not die, "head" or "tail" of the queue or the milliseconds after which it goes there, number of
--       this release, from 1: those of a process that are smaller were asked for before, or in the same call
local process, number = string.match(redis.call('GET', KEYS[4]) or '', '^(%S+) (%d+)$')
if process and process ~= ARGV[3] then
  return -- a successor has the name, and the messages held under it are back
end
local done = tonumber(number) or 0
-- These change nothing, and prove that the removals after the additions can be done. A server without memory refuses
-- neither the first one nor the writes after it.
redis.call('SREM', KEYS[2], '')
redis.call('SET', KEYS[4], string.format('%s %.0f', ARGV[3], done), 'PX', 3600000)
require_right('LPUSH', KEYS[4], '')
require_right('RPUSH', KEYS[4], '')
local last = done
for i = #ARGV - 4, 4, -5 do
  local id, details = ARGV[i], ARGV[i + 1]
  local this = tonumber(ARGV[i + 4])
  last = math.max(last, this)
  if this > done and redis.call('SISMEMBER', KEYS[2], id) == 1 then
    local delay = tonumber(ARGV[i + 3])
    if delay then
      local keys = keys_of(KEYS[1])
      local due = milliseconds(redis.call('TIME')) + delay
      redis.call('ZADD', keys.delayed_messages, string.format('%.0f', due), id)
      wake(keys.wake)
    else
      redis.call(ARGV[i + 3] == 'tail' and 'RPUSH' or 'LPUSH', KEYS[1], id)
    end
    redis.call('SREM', KEYS[2], id)
    if ARGV[i + 2] == '1' then
      redis.pcall('HINCRBY', KEYS[3], id, -1)
    end
    if redis.pcall('HGET', details, FIELD.status) == STATUS.processing then -- and not cancelled
      redis.pcall('HSET', details, FIELD.status, STATUS.pending, FIELD.updatedAt, ARGV[1])
      redis.pcall('PUBLISH', ARGV[2] .. details, WORD.pending)
    end
  end
end
if last > done then
  redis.call('SET', KEYS[4], string.format('%s %.0f', ARGV[3], last), 'PX', 3600000)
end
