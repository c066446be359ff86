-- Hand over what was delayed and is due, earliest first, by the server's clock.
--
-- KEYS  for each circle: delayed (sorted set), native list, delayed messages (sorted set), messages (list)
-- ARGV  1 how many of each are moved at most: the server has others to serve
-- Returns {how many were moved, milliseconds until the next is due, -1: nothing is delayed}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local moved, wait = 0, -1

local function sleep(milliseconds)
  wait = wait < 0 and milliseconds or math.min(wait, milliseconds)
end

local function move(from, to, push)
  local due = redis.call('ZRANGEBYSCORE', from, '-inf', now, 'LIMIT', 0, ARGV[1])
  if push == 'LPUSH' then -- the last one pushed is the first to be taken
    local last = #due
    for i = 1, math.floor(last / 2) do due[i], due[last + 1 - i] = due[last + 1 - i], due[i] end
  end
  for _, id in ipairs(due) do
    local pushed = redis.pcall(push, to, id)
    if type(pushed) == 'table' then -- the key holds no list: other circles' tasks must not wait for that
      return sleep(1000)
    end
    redis.call('ZREM', from, id)
    moved = moved + 1
  end
  local first = redis.call('ZRANGE', from, 0, 0, 'WITHSCORES')
  if first[2] then
    sleep(math.max(first[2] - now, 0))
  end
end

for i = 1, #KEYS, 4 do
  move(KEYS[i], KEYS[i + 1], 'LPUSH')
  move(KEYS[i + 2], KEYS[i + 3], 'RPUSH')
end
return {moved, math.ceil(wait)}
