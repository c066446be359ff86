-- Move ids from a native list to the queue of the actor that runs them: as many as there is room for, in one step.
--
-- KEYS  1 native list   2 messages (list)   3 full (string)   4 registry (set)
--       5 published (sorted set), if there is RabbitMQ
-- ARGV  1 how many messages may wait   2 queue name
-- Returns {how many were moved, how many may still come}.
-- First of all a write that a server without memory refuses: nothing is half done then.
redis.call('SADD', KEYS[4], ARGV[2])
local room = ARGV[1] - redis.call('LLEN', KEYS[2]) - (KEYS[5] and redis.call('ZCARD', KEYS[5]) or 0)
local ids = room > 0 and redis.pcall('LPOP', KEYS[1], room) or {}
if not ids or ids.err then -- there is none, or the key holds no list
  ids = {}
end
for first = 1, #ids, 1000 do -- Lua hands no more than some thousand arguments over
  redis.call('RPUSH', KEYS[2], unpack(ids, first, math.min(first + 999, #ids)))
end
room = room - #ids
if room <= 0 then
  redis.call('SET', KEYS[3], '1', 'PX', 10000)
end
return {#ids, room}
