-- Accept a signed task for one message, which is about to run it: the same signature runs no other message.
--
-- Needs  connection/common, queue/keys, queue/messages
-- KEYS  1 acceptance of the signed form (string)   2 messages (list)   3 bodies (hash)   4 published (sorted set)
--       5 leases (sorted set)
-- ARGV  1 message id   2 when the task was signed, in milliseconds   3 milliseconds in which it has to begin
--       4 milliseconds by which its clock may be ahead   5 milliseconds for which the script may run
--       6 start of the names of acks, up to a broker id   7 queue name
-- Returns {"accepted"}, {"replayed"}, or {"old"} or {"early"} with the milliseconds since it was signed.
--
-- The value of an acceptance: the millisecond at which the signature is too old; 1 if the message has ended, else 0;
-- the id of the message. It lasts until the signature is too old, and as long as the script may run: meanwhile the task
-- can come back after a crash.
local now, id = milliseconds(redis.call('TIME')), ARGV[1]
local valid, ended, holder = string.match(read('GET', KEYS[1]) or '', '^(%d+) ([01]) (.*)$')

-- Say whether the message that the signature was accepted for is still there. If it is not, and has not ended, it was
-- given back to the native list.
local function is_there()
  local acks = acks_of(read('ZRANGE', KEYS[5], 0, -1) or {}, ARGV[6], ARGV[7])
  local places = {published = KEYS[4], delayed_messages = keys_of(KEYS[2]).delayed_messages, acks = acks}
  return read('HEXISTS', KEYS[3], holder) == 1 or is_elsewhere(holder, places)
end

if not valid then
  local age = now - ARGV[2]
  if age > tonumber(ARGV[3]) then
    return {'old', age}
  elseif age < -ARGV[4] then
    return {'early', age}
  end
  valid = ARGV[2] + ARGV[3]
elseif holder ~= id and (ended == '1' or is_there()) then
  return {'replayed'}
end
local lasts = math.max(valid - now, tonumber(ARGV[5]))
redis.call('SET', KEYS[1], string.format('%.0f 0 %s', valid, id), 'PX', string.format('%.0f', lasts))
return {'accepted'}
