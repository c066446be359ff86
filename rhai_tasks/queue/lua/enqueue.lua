-- Enqueue one message, whole or not at all, now or after a delay, and write the details of its task.
--
-- Needs  connection/common, queue/keys, queue/delays, queue/submission, queue/waiting
-- KEYS  1 messages (list)   2 bodies (hash)   3 registry (set)   4 delayed messages (sorted set)   5 wake (list)
--       6 details (hash)
-- ARGV  1 message id   2 body   3 queue name   4 delay in milliseconds   5 "1": before all others
--       6 task id   7 circle   8 prefix of native lists   9 namespace
--       10 on: names and values of the details' fields; none: the message brings no details
-- Returns nothing; or, if more would wait than a limit allows, {caller, how many of its tasks may wait, 1}, without the
-- 1: of the circle. Nothing was enqueued then.
local push = ARGV[5] == '1' and 'LPUSH' or 'RPUSH'
local known
local waiting = {}
if ARGV[10] then
  local exists, has_rules = exists_beside_rules(KEYS[6], KEYS[1])
  if exists then
    known = read('HMGET', KEYS[6], FIELD.status, FIELD.error, FIELD.circle) or {}
  end
  if has_rules then
    -- Functions that only this block uses are made here.
    local ids, refusal = {ARGV[6]}
    waiting, refusal = sets_of_waiting(ARGV[8] .. ARGV[7], KEYS[1], string.sub(KEYS[6], 1, -1 - #ARGV[6]), ids,
      {[caller_in(10, #ARGV)] = ids})
    if refusal then
      return refusal
    end
  end
end
-- The body comes first: without its id in a list it is nobody's.
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])

local function add()
  for _, one in ipairs(waiting) do call_with_all('SADD', one[1], one[2]) end
  if is_circle_queue(ARGV[3]) then
    redis.call('SADD', KEYS[3], ARGV[3])
  end
  if known then
    local scratch = KEYS[5] .. '.'
    if take_out({[ARGV[6]] = known}, push, KEYS[1], KEYS[4], scratch, ARGV[7], ARGV[8], ARGV[9]) then
      error('the id of the task is the id of a message, too: ' .. ARGV[6], 0)
    end
  end
  if ARGV[4] == '0' then
    redis.call(push, KEYS[1], ARGV[1])
  else
    redis.call('ZADD', KEYS[4], string.format('%.0f', milliseconds(redis.call('TIME')) + ARGV[4]), ARGV[1])
    wake(KEYS[5])
  end
end

local added, failure = pcall(add)
if not added then
  redis.pcall('HDEL', KEYS[2], ARGV[1])
  return redis.error_reply(error_text(failure))
end
if known then
  redis.call('DEL', KEYS[6]) -- of an earlier run
end
call_with_all('HSET', KEYS[6], ARGV, 10)
if known then -- a run of the earlier submission may still go on: it must not write its outcome
  redis.call('HSET', KEYS[6], FIELD.submission, ARGV[1])
end
