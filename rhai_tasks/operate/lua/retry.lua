-- Put dead letters back at the end of their queue.
--
-- KEYS  1 messages (list)   2 bodies (hash)   3 dead (sorted set)   4 dead bodies (hash)   5 reasons (hash)
-- ARGV  message ids
-- Returns how many went back.
local revived = 0
for _, id in ipairs(ARGV) do
  local body = redis.call('HGET', KEYS[4], id)
  if body and redis.call('ZREM', KEYS[3], id) == 1 then
    redis.call('HSET', KEYS[2], id, body)
    redis.call('RPUSH', KEYS[1], id)
    redis.call('HDEL', KEYS[4], id)
    redis.call('HDEL', KEYS[5], id)
    revived = revived + 1
  end
end
return revived
