-- Move ids from a native list to the queue of the actor that runs them: as many as there is room for, in one step.
--
-- Needs  connection/common
-- KEYS  1 native list   2 messages (list)   3 full (string)   4 registry (set)
--       5 published (sorted set), if there is RabbitMQ
-- ARGV  1 how many messages may wait   2 queue name   3 "oldest": take the ids from the other end of the list
-- Returns {how many were moved, how many may still come}.
-- A server without memory refuses this first write: nothing is half done then.
redis.call('SADD', KEYS[4], ARGV[2])
local room = ARGV[1] - redis.call('LLEN', KEYS[2]) - (KEYS[5] and redis.call('ZCARD', KEYS[5]) or 0)
local oldest = ARGV[3] == 'oldest'
local first, last = 0, room - 1
if oldest then
  first, last = -room, -1
end
local ids = room > 0 and read('LRANGE', KEYS[1], first, last) or {} -- none where the key holds no list
if #ids > 0 then
  if oldest then
    ids = reversed(ids)
  end
  redis.call('LTRIM', KEYS[1], 0, -1) -- removes nothing, and proves that the ids can be removed
  call_with_all('RPUSH', KEYS[2], ids)
  if oldest then
    redis.call('LTRIM', KEYS[1], 0, -1 - #ids)
  else
    redis.call('LTRIM', KEYS[1], #ids, -1)
  end
end
room = room - #ids
if room <= 0 then
  redis.pcall('SET', KEYS[3], '1', 'PX', 10000)
end
return {#ids, room}
