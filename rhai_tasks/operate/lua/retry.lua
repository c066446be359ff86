-- Put dead letters back at the end of their queue.
--
-- Needs  nothing
-- KEYS  1 messages (list)   2 bodies (hash)   3 dead (sorted set)   4 dead bodies (hash)   5 reasons (hash)
-- ARGV  message ids
-- Returns how many went back.
local revived = 0
for _, id in ipairs(ARGV) do
  local body = redis.call('ZSCORE', KEYS[3], id) and redis.call('HGET', KEYS[4], id)
  if body then
    -- These remove nothing, and prove that the dead letter can be removed.
    redis.call('HDEL', KEYS[4], '')
    redis.call('HDEL', KEYS[5], '')
    redis.call('ZREM', KEYS[3], '')
    redis.call('HSET', KEYS[2], id, body)
    redis.call('RPUSH', KEYS[1], id)
    redis.call('ZREM', KEYS[3], id)
    redis.call('HDEL', KEYS[4], id)
    redis.call('HDEL', KEYS[5], id)
    revived = revived + 1
  end
end
return revived
