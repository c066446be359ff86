-- Put messages that a worker holds and did not run to an end back into their queue, `pending` again.
--
-- KEYS  1 messages (list)   2 acks (set)   3 deliveries (hash)
-- ARGV  1 time for `updatedAt`   2 start of the names of channels for states
--       then for each message, oldest first: message id, details key, "1": its delivery was counted though
--       its process did not die, "1": to the tail of the queue, not to its head
-- Returns how many went back.
local released = 0
for i = #ARGV - 3, 3, -4 do
  local id, details = ARGV[i], ARGV[i + 1]
  if redis.call('SREM', KEYS[2], id) == 1 then
    redis.call(ARGV[i + 3] == '1' and 'RPUSH' or 'LPUSH', KEYS[1], id)
    released = released + 1
    if ARGV[i + 2] == '1' then
      redis.call('HINCRBY', KEYS[3], id, -1)
    end
    if redis.pcall('HGET', details, 'status') == 'processing' then -- and not cancelled
      redis.call('HSET', details, 'status', 'pending', 'updatedAt', ARGV[1])
      redis.pcall('PUBLISH', ARGV[2] .. details, 'pending')
    end
  end
end
return released
