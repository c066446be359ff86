-- Cancel a task that has not ended: whoever fetches it passes it over, and who runs it is told to stop.
--
-- KEYS  1 details (hash)
-- ARGV  1 task id   2 time for `updatedAt`   3 channel for cancels   4 start of the names of channels for states
-- Returns "cancelled", now or before; the final status of a task that ended otherwise; nil: there is none.
local known = redis.call('HMGET', KEYS[1], 'status', 'error')
if known[1] == 'error' and known[2] == 'cancelled' then
  return 'cancelled'
elseif known[1] == 'error' or known[1] == 'completed' then
  return known[1]
elseif redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
redis.call('HSET', KEYS[1], 'status', 'error', 'error', 'cancelled', 'updatedAt', ARGV[2])
redis.call('HDEL', KEYS[1], 'output')
redis.pcall('PUBLISH', ARGV[3], ARGV[1])
redis.pcall('PUBLISH', ARGV[4] .. KEYS[1], 'error cancelled')
return 'cancelled'
