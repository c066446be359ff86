-- Renew a broker's lease, by the server's clock, and find out which of its tasks were cancelled, and which of its
-- messages it holds no more.
--
-- Needs  connection/common, queue/cancellation
-- KEYS  1 leases (sorted set)   2 acks of that broker (set)   3 workers (hash)   4 bodies (hash)
-- ARGV  1 broker id   2 lease in milliseconds   3 its heartbeat, a JSON object that gets the server's time, or nothing
--       4 milliseconds from now to which leases that end too far ahead are shortened, or nothing: they stay
--       then for each message that the broker holds: message id, details key, submission as it was fetched or nothing
-- Returns {1 if the lease was still valid, else 0; ids of brokers whose lease has run out; positions of the tasks that
-- were cancelled or submitted again, from 0; if the lease was not valid, ids of the messages that the broker still
-- holds; how many it holds, -1: its key of acks is not a set; the server's millisecond; 1 if a lease ends more than a
-- lease ahead; if the lease was valid, positions of the messages that are not in the acks or have no body; the server's
-- error text for the heartbeat, or nothing; 1 if an operator keeps this broker quiet, 0: not, -1: without a heartbeat
-- it is not known}. A server without memory refuses neither this first write nor those after it: a living worker must
-- keep its lease even while others, by chance, can write.
redis.call('ZREM', KEYS[1], '')
local now = milliseconds(redis.call('TIME'))
local longest = now + ARGV[2]
-- Such a lease is from before the clock went back. The living renew theirs; nobody else's would end for as long as the
-- clock went back.
local ahead = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', longest), '+inf')
if ARGV[4] ~= '' then
  for _, broker in ipairs(ahead) do
    redis.call('ZADD', KEYS[1], now + ARGV[4], broker)
  end
end
-- Never to an earlier end: the clock may be back for a moment only, and other brokers may miss that moment.
local stood = 1 - redis.call('ZADD', KEYS[1], 'GT', longest, ARGV[1])

local refused, quiet = '', -1
if ARGV[3] ~= '' then
  -- A courtesy: a broker whose heartbeat is refused keeps its lease.
  local written, failure = pcall(function()
    redis.call('HSET', KEYS[3], ARGV[1], '{"at":' .. string.format('%.0f', now) .. ',' .. string.sub(ARGV[3], 2))
    redis.call('PEXPIRE', KEYS[3], 3600000)
    quiet = redis.call('HEXISTS', KEYS[3], 'quiet ' .. ARGV[1])
    if quiet == 1 then -- it lasts as long as the process and those that take its place
      redis.call('HSET', KEYS[3], 'quiet ' .. ARGV[1], '{"at":' .. string.format('%.0f', now) .. ',"quiet":true}')
    end
    -- A killed broker leaves its heartbeat behind: each renewal checks some. The clock may have gone back since.
    local some = redis.call('HRANDFIELD', KEYS[3], 3, 'WITHVALUES')
    for i = 1, #some, 2 do
      local at = string.match(some[i + 1], '^{"at":(%d+),')
      if not at or math.abs(at - now) > 60000 then
        redis.call('HDEL', KEYS[3], some[i])
      end
    end
  end)
  refused = written and '' or error_text(failure)
end

local count = redis.pcall('SCARD', KEYS[2])
if type(count) ~= 'number' then
  count = -1
end
local ids, cancelled, missing = {}, {}, {}
for i = 5, #ARGV, 3 do
  ids[#ids + 1] = ARGV[i]
  local known = redis.pcall('HMGET', ARGV[i + 1], FIELD.status, FIELD.error, FIELD.submission)
  if not known.err and (is_cancelled(known[1], known[2]) or (known[3] or '') ~= ARGV[i + 2]) then
    cancelled[#cancelled + 1] = #ids - 1
  end
end
if stood == 1 and count >= 0 then
  for i, is_held in ipairs(call_with_all('SMISMEMBER', KEYS[2], ids)) do
    if is_held == 0 or redis.pcall('HEXISTS', KEYS[4], ids[i]) == 0 then
      missing[#missing + 1] = i - 1
    end
  end
end
local held = (stood == 1 or count < 0) and {} or redis.call('SMEMBERS', KEYS[2])
return {stood, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now), cancelled, held, count, now, #ahead > 0 and 1 or 0,
  missing, refused, quiet}
