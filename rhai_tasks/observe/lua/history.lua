-- Add what a worker process has counted in the last minute to the history.
--
-- Needs  nothing
-- ARGV  1 prefix of the keys of the history   2 bytes of a minute of all circles   3 seconds after which a day expires
--       4 how many numbers of all circles follow, then these; then for each circle its queue, how many of its tasks
--       have completed, and how many have failed
-- A day of the history is a string: four bytes for each number of each minute, so its size is bounded.
local now = tonumber(redis.call('TIME')[1])
local day, minute = math.floor(now / 86400), math.floor(now % 86400 / 60)

local function add(key, first, numbers)
  local words = {}
  for place, number in ipairs(numbers) do
    if number ~= '0' then
      for _, word in ipairs({'incrby', 'u32', '#' .. (first + place - 1), number}) do words[#words + 1] = word end
    end
  end
  if #words > 0 then
    redis.call('BITFIELD', key, 'overflow', 'sat', unpack(words))
    redis.call('PEXPIRE', key, ARGV[3] * 1000)
  end
end

local count = tonumber(ARGV[4])
add(ARGV[1] .. day, minute * ARGV[2] / 4, {unpack(ARGV, 5, 4 + count)})
for i = 5 + count, #ARGV, 3 do
  add(ARGV[1] .. day .. '.' .. ARGV[i], minute * 2, {ARGV[i + 1], ARGV[i + 2]})
end
