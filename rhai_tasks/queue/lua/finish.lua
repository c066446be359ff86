-- Record final outcomes, reply, and acknowledge: one step for each task, and only while the broker holds it.
-- A task that was cancelled in the meantime ends as cancelled, whatever its script came to.
--
-- KEYS  1 acks (set)   2 bodies (hash)   3 deliveries (hash)   4 dead (sorted set)   5 dead bodies (hash)
--       6 reasons (hash)
-- ARGV  1 "1": delete the details after the reply   2 milliseconds after which a reply list expires, 0: never
--       3 seconds after which the details expire, unless they say so themselves, 0: never
--       4 start of the names of channels for states   5 namespace
--       then for each task: message id, details key, status, its text, time for `updatedAt`, how many more follow:
--       none, or of the next message of a pipeline its queue, or nothing, its id, its body; reply JSON, reply lists...
-- Returns for each task: "recorded"; "lost": another broker holds it now, nothing was written; or the
-- server's error text: its details key is no hash any more, the message is a dead letter.
local results = {}
local ids, held = {}, {} -- of all messages; and whether the broker still holds them
local gone = {} -- ids of messages that nobody needs any more

local function each_thousand(list, call) -- Lua hands no more than some thousand arguments over
  for first = 1, #list, 1000 do
    call({unpack(list, first, math.min(first + 999, #list))})
  end
end

local i = 6
while i <= #ARGV do
  ids[#ids + 1] = ARGV[i]
  i = i + 6 + ARGV[i + 5]
end
each_thousand(ids, function(some)
  for n, is_held in ipairs(redis.call('SMISMEMBER', KEYS[1], unpack(some))) do
    held[some[n]] = is_held == 1
    gone[#gone + 1] = is_held == 1 and some[n] or nil
  end
end)
-- First of all a write that a server without memory does not refuse, nor then what follows; acknowledged is last of all.
each_thousand(gone, function(some)
  redis.call('HDEL', KEYS[3], unpack(some))
end)

i = 6
while i <= #ARGV do
  local id, details, status, text, at, more = unpack(ARGV, i, i + 5)
  i = i + 6
  local queue, next, body, json = '', nil, nil, nil
  local last = i + more
  if more ~= '0' then
    queue, next, body, json = unpack(ARGV, i, i + 3)
    i = i + 4
  end
  local result = 'lost'
  if held[id] then
    held[id] = false
    local known = redis.pcall('HMGET', details, 'status', 'error', 'expireFinished')
    if known.err then
      result = known.err
      local time = redis.call('TIME')
      redis.call('HSET', KEYS[5], id, redis.call('HGET', KEYS[2], id) or '')
      redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000), id)
      redis.call('HSET', KEYS[6], id, 'its details are not a hash: ' .. known.err)
    else
      result = 'recorded'
      if known[1] == 'error' and known[2] == 'cancelled' then
        status, text, queue = 'error', 'cancelled', ''
        if i < last then
          local reply = cjson.decode(json)
          reply.status, reply.output, reply.error = status, cjson.null, text
          json = cjson.encode(reply)
        end
      end
      local completed = status == 'completed'
      redis.call('HSET', details, 'status', status, completed and 'output' or 'error', text, 'updatedAt', at)
      if known[2] or not completed then
        redis.call('HDEL', details, completed and 'error' or 'output') -- of an earlier run
      end
      for r = i, last - 1 do
        local pushed = redis.pcall('LPUSH', ARGV[r], json)
        if type(pushed) == 'number' and ARGV[2] ~= '0' then
          redis.call('PEXPIRE', ARGV[r], ARGV[2])
        end
      end
      local expiry = tonumber(known[3] or '') or tonumber(ARGV[3])
      if ARGV[1] == '1' then
        redis.call('DEL', details)
      elseif expiry > 0 then
        redis.pcall('PEXPIRE', details, math.ceil(expiry * 1000)) -- a client may have asked for any number
      end
      if queue ~= '' then
        local messages = ARGV[5] .. ':' .. queue
        redis.call('HSET', messages .. '.msgs', next, body)
        redis.call('RPUSH', messages, next)
      end
      -- Not `call`: who may not publish may still finish.
      redis.pcall('PUBLISH', ARGV[4] .. details, #text <= 4096 and status .. ' ' .. text or status)
    end
  end
  results[#results + 1] = result
  i = last
end
each_thousand(gone, function(some)
  redis.call('SREM', KEYS[1], unpack(some))
  redis.call('HDEL', KEYS[2], unpack(some))
end)
return results
