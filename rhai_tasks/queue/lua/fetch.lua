-- Take up to `count` messages off their list; `number.lua` stands before this, and `hold.lua` goes on.
--
-- KEYS  8 sequence (string)   the rest as in `hold.lua`
-- ARGV  1 count   8 start of a message, up to its argument   the rest as in `hold.lua`
local time = redis.call('TIME')
-- First of all a write that a server without memory refuses: nothing is half done then.
local added = redis.call('ZADD', KEYS[5], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[2])

local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if redis.call('LLEN', KEYS[1]) < tonumber(ARGV[4]) and redis.call('DEL', KEYS[6]) == 1 then
  redis.call('RPUSH', KEYS[7], '1')
  redis.call('PEXPIRE', KEYS[7], 10000)
end
if not ids then
  return {added, {}}
end
local bodies, tasks = number(ids, time, KEYS[2], KEYS[8], KEYS[4], ARGV[8])
