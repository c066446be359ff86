-- Count a delivery before its script can end the process, if the broker still holds the message.
--
-- Needs  nothing
-- KEYS  1 acks (set)   2 deliveries (hash)   3 bodies (hash)
-- ARGV  1 message id   2 how often a process has died with it, should this one   3 prefix of details keys
-- Returns 1 if it was counted.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
-- A message that other tools removed, and a task that an original worker took, leave their count behind: each call
-- checks some.
for _, id in ipairs(redis.pcall('HRANDFIELD', KEYS[2], 3)) do
  local task = string.match(id, '^:(.*)$')
  local status = task and redis.pcall('HGET', ARGV[3] .. task, FIELD.status)
  local exists = status or task and redis.pcall('EXISTS', ARGV[3] .. task) or redis.pcall('HEXISTS', KEYS[3], id)
  if exists == 0 or status == STATUS.completed or status == STATUS.error then
    redis.pcall('HDEL', KEYS[2], id)
  end
end
return 1
