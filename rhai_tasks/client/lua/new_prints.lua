-- Read what a task's script has printed beyond what the caller has.
--
-- Needs  nothing
-- KEYS  1 details (hash)
-- ARGV  1 how many bytes the caller has   2 number of the delivery that printed them, or nothing
-- Returns nil if there are no details, else {1 if the task has ended, else 0; `keepPrints`, or nil; number of the
-- delivery, or nil; 1 if the caller's bytes are of another delivery, else 0; what is printed beyond them, or by the new
-- delivery}.
local known = redis.call('HMGET', KEYS[1], FIELD.status, FIELD.keepPrints, FIELD.deliveries, FIELD.printed)
local status, asked, delivery, printed = unpack(known)
if not (status or asked or printed) and redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
printed = printed or ''
local is_other = #printed < tonumber(ARGV[1]) or ARGV[2] ~= '' and delivery and delivery ~= ARGV[2]
local ended = status == STATUS.completed or status == STATUS.error
return {ended and 1 or 0, asked, delivery, is_other and 1 or 0, string.sub(printed, is_other and 1 or ARGV[1] + 1)}
