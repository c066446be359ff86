-- Move a held message that cannot be processed, and has no hash to say so in, to dramatiq's dead letters.
--
-- KEYS  1 acks (set)   2 bodies (hash)   3 deliveries (hash)   4 dead (sorted set)   5 dead bodies (hash)
--       6 reasons (hash)
-- ARGV  1 message id   2 what is wrong with it
if redis.call('SREM', KEYS[1], ARGV[1]) == 1 then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[5], ARGV[1], redis.call('HGET', KEYS[2], ARGV[1]) or '')
  redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1])
  redis.call('HSET', KEYS[6], ARGV[1], ARGV[2])
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
end
