-- Delete a name and its history, or a stored script that no name points to.
--
-- Needs  nothing
-- KEYS  1 scripts (hash)   2 names (hash)   3 history of the name (list)
-- ARGV  1 name, or nothing   2 hash, without a name
-- Returns 1; 0 if there is none; a name that points to the script, which then stays.
if ARGV[1] ~= '' then
  redis.call('DEL', KEYS[3])
  return redis.call('HDEL', KEYS[2], ARGV[1])
end
local names = redis.call('HGETALL', KEYS[2])
for i = 1, #names, 2 do
  if names[i + 1] == ARGV[2] then
    return names[i]
  end
end
return redis.call('HDEL', KEYS[1], ARGV[2])
