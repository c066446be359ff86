-- Enqueue one message, whole or not at all.
--
-- KEYS  1 messages (list)   2 bodies (hash)   3 registry (set)
-- ARGV  1 message id   2 body   3 queue name
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('SADD', KEYS[3], ARGV[3])
