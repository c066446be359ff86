-- Put published messages that no worker has claimed back at the head of their list, oldest first: they are published
-- again. What RabbitMQ has of them by then is nobody's message, and nobody runs it.
--
-- KEYS  1 messages (list)   2 published (sorted set)   3 bodies (hash)
-- Returns how many.
local ids = redis.call('ZRANGE', KEYS[2], 0, -1)
for i = #ids, 1, -1 do
  if redis.call('HEXISTS', KEYS[3], ids[i]) == 1 then -- else dramatiq's tools have purged it
    redis.call('LPUSH', KEYS[1], ids[i])
  end
end
redis.call('DEL', KEYS[2])
return #ids
