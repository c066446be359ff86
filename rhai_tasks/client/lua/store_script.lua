-- Store a script, and let a name point to it.
--
-- Needs  nothing
-- KEYS  1 scripts (hash)   2 names (hash)   3 history of the name (list)
-- ARGV  1 hash   2 source   3 name, or nothing   4 most entries of a history
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
if ARGV[3] ~= '' and redis.call('HGET', KEYS[2], ARGV[3]) ~= ARGV[1] then
  redis.call('LPUSH', KEYS[3], redis.call('TIME')[1] .. ' ' .. ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])
  redis.pcall('LTRIM', KEYS[3], 0, ARGV[4] - 1)
end
