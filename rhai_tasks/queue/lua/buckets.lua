-- Functions about token buckets: how many tasks of a circle, or of a caller, may begin by their rate.
--
-- A bucket is a field of a hash, `circle` or `caller <caller>`. Its value is three big-endian doubles: its tokens, the
-- microsecond at which they were counted, the one at which it is full. Blanks behind them make it as long as
-- `number_of_turns` makes numbers, and for the same reason.
--
-- Needs  connection/common

-- Return the buckets of a circle, as functions whose `limit` has a rate, in tasks a second, and may have a burst.
-- `key`: of their hash; `time`: as `TIME` tells.
local function token_buckets(key, time)
  local buckets, now = {}, time[1] * 1000000 + time[2]
  local tokens, spent = {}, {} -- by field: how many there are by now; limits of those that have lost some

  local function burst_of(limit)
    return tonumber(limit.burst) or math.max(limit.rate, 1)
  end

  -- Read buckets that have not been read yet, in one command. `limits`: by position. A clock that has gone back fills
  -- none.
  function buckets.load(fields, limits)
    local unread, places = {}, {}
    for i, field in ipairs(fields) do
      if not tokens[field] then
        unread[#unread + 1], places[#places + 1] = field, i
      end
    end
    for n, bucket in ipairs(call_with_all('HMGET', key, unread)) do
      local limit = limits[places[n]]
      local number, at = burst_of(limit), now
      if bucket and #bucket >= 24 then
        number, at = struct.unpack('>dd', bucket)
      end
      number = number + math.max(now - at, 0) / 1000000 * limit.rate
      tokens[unread[n]] = number == number and math.min(number, burst_of(limit)) or 0 -- NaN is not written here
    end
  end

  -- Return after how many milliseconds a bucket has a token; 0: it has one.
  function buckets.wait(field, limit)
    if not tokens[field] then
      buckets.load({field}, {limit})
    end
    if tokens[field] >= 1 then
      return 0
    end
    -- Where many callers wait, a token is due at any moment. Some come at once, and no bucket gets full meanwhile.
    local least = math.min(10, burst_of(limit) / limit.rate * 500)
    return math.ceil(math.min(math.max((1 - tokens[field]) / limit.rate * 1000, least), 1000))
  end

  -- Take a token out of a bucket that has been read.
  function buckets.spend(field, limit)
    tokens[field], spent[field] = tokens[field] - 1, limit
  end

  -- Forget some buckets that are full, once there are many: more than have been written.
  local function forget(written)
    if redis.call('HLEN', key) < 1000 then
      return
    end
    local some, gone = redis.call('HRANDFIELD', key, 20 + 2 * written, 'WITHVALUES'), {}
    for i = 1, #some, 2 do
      if #some[i + 1] < 24 or struct.unpack('>d', some[i + 1], 17) <= now then
        gone[#gone + 1] = some[i]
      end
    end
    call_with_all('HDEL', key, gone)
  end

  -- Write the buckets that have lost tokens.
  function buckets.write()
    local values, longest = {}, 0
    for field, limit in pairs(spent) do
      local lifetime, n = (burst_of(limit) - tokens[field]) / limit.rate * 1000000, #values
      values[n + 1] = field
      values[n + 2] = struct.pack('>ddd', tokens[field], now, now + lifetime) .. string.rep(' ', 41)
      longest = math.max(longest, math.ceil(lifetime / 1000) + 1000)
    end
    call_with_all('HSET', key, values)
    if longest > 0 then
      if redis.call('PTTL', key) < longest then
        redis.call('PEXPIRE', key, string.format('%.0f', longest))
      end
      forget(#values / 2)
    end
  end

  return buckets
end
