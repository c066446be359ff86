-- Put published messages that no worker has claimed back at the head of their list, oldest first: they are published
-- again. An id that RabbitMQ still delivers afterwards names no published message, and no worker runs it.
--
-- Needs  connection/common
-- KEYS  1 messages (list)   2 published (sorted set)   3 bodies (hash)
-- Returns how many.
local ids = redis.call('ZRANGE', KEYS[2], 0, -1)
redis.call('ZREM', KEYS[2], '') -- removes nothing, and proves that the messages can be removed
for i = #ids, 1, -1 do
  if redis.call('HEXISTS', KEYS[3], ids[i]) == 1 then -- else dramatiq's tools have purged it
    redis.call('LPUSH', KEYS[1], ids[i])
  end
end
call_with_all('ZREM', KEYS[2], ids)
return #ids
