-- Add what a running script has printed to its task's details, if the broker still holds the message.
--
-- Needs  connection/common
-- KEYS  1 acks (set)   2 details (hash)
-- ARGV  1 message id   2 submission as it was fetched or nothing   3 number of the delivery
--       4 how many bytes this delivery has added before   5 what is new
-- Bytes beyond these are dropped: an earlier delivery's, or that of the same write whose reply got lost.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
  local known = read('HMGET', KEYS[2], FIELD.submission, FIELD.printed)
  if known and (known[1] or '') == ARGV[2] then
    local before = string.sub(known[2] or '', 1, ARGV[4])
    redis.call('HSET', KEYS[2], FIELD.printed, before .. ARGV[5], FIELD.deliveries, ARGV[3])
  end
end
