-- Record final outcomes, reply, and acknowledge: one step for each task, and only while the broker holds it.
--
-- KEYS  1 acks (set)   2 bodies (hash)   3 deliveries (hash)   4 dead (sorted set)   5 dead bodies (hash)
-- ARGV  1 "1": delete the details after the reply   2 milliseconds after which a reply list expires, 0: never
--       then for each task: message id, details key, status, "output" or "error", its text, time for
--       `updatedAt`, number of reply lists, reply JSON, reply lists...
-- Returns for each task: "recorded"; "lost": another broker holds it now, nothing was written; or the
-- server's error text: its details key is no hash any more, the message is a dead letter.
local results = {}
local i = 3
while i <= #ARGV do
  local id, details, status, field, text, at = unpack(ARGV, i, i + 5)
  local replies, json = tonumber(ARGV[i + 6]), ARGV[i + 7]
  local result = 'lost'
  if redis.call('SREM', KEYS[1], id) == 1 then
    local written = redis.pcall('HSET', details, 'status', status, field, text, 'updatedAt', at)
    if type(written) == 'table' and written.err then
      result = written.err
      local time = redis.call('TIME')
      redis.call('HSET', KEYS[5], id, redis.call('HGET', KEYS[2], id) or '')
      redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000), id)
    else
      result = 'recorded'
      redis.call('HDEL', details, field == 'output' and 'error' or 'output') -- of an earlier run
      for r = i + 8, i + 7 + replies do
        local pushed = redis.pcall('LPUSH', ARGV[r], json)
        if type(pushed) == 'number' and ARGV[2] ~= '0' then
          redis.call('PEXPIRE', ARGV[r], ARGV[2])
        end
      end
      if ARGV[1] == '1' then
        redis.call('DEL', details)
      end
    end
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[3], id)
  end
  results[#results + 1] = result
  i = i + 8 + replies
end
return results
