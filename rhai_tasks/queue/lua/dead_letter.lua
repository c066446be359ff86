-- Move a held message that cannot be processed to dramatiq's dead letters: it has no details to write an error to.
--
-- Needs  connection/common, queue/letters
-- KEYS  1 acks (set)   2 bodies (hash)   3 deliveries (hash)   4 dead (sorted set)   5 dead bodies (hash)
--       6 reasons (hash)
-- ARGV  1 message id   2 what is wrong with it
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
  return
end
-- These remove nothing, and prove that the message can be removed. A server without memory refuses neither them nor the
-- writes after them.
redis.call('HDEL', KEYS[2], '')
redis.call('HDEL', KEYS[3], '')
redis.call('SREM', KEYS[1], '')
local dead = {dead = KEYS[4], dead_bodies = KEYS[5], dead_reasons = KEYS[6]}
local body = redis.call('HGET', KEYS[2], ARGV[1]) or ''
add_dead_letter(redis.call, dead, ARGV[1], body, ARGV[2], milliseconds(redis.call('TIME')))
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('SREM', KEYS[1], ARGV[1])
-- Other tools remove dead letters without their reasons: each call checks some.
local some = read('HRANDFIELD', KEYS[6], 3) or {}
for _, id in ipairs(some) do
  if not redis.call('ZSCORE', KEYS[4], id) then
    redis.pcall('HDEL', KEYS[6], id)
  end
end
