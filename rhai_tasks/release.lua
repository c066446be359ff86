-- Put messages that a stopping worker did not finish back at the head of their queue, `pending` again.
--
-- KEYS  1 messages (list)   2 acks (set)   3 deliveries (hash)
-- ARGV  1 time for `updatedAt`   then for each message, oldest first: message id, details key, "1": its
--       delivery was counted though its process did not die
-- Returns how many went back.
local released = 0
for i = #ARGV - 2, 2, -3 do
  local id, details = ARGV[i], ARGV[i + 1]
  if redis.call('SREM', KEYS[2], id) == 1 then
    redis.call('LPUSH', KEYS[1], id)
    released = released + 1
    if ARGV[i + 2] == '1' then
      redis.call('HINCRBY', KEYS[3], id, -1)
    end
    local there = redis.pcall('HEXISTS', details, 'status')
    if there == 1 then
      redis.call('HSET', details, 'status', 'pending', 'updatedAt', ARGV[1])
    end
  end
end
return released
