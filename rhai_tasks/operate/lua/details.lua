-- Read tasks' details as far as a page shows them: others write them, and a field may be huge.
--
-- Needs  nothing
-- KEYS  details (hashes)
-- ARGV  1 bytes of a value that are returned   2 bytes of a value beyond which it is not read at all
--       3 how many other fields are returned   4 on: names of fields
-- Returns for each key the server's error text if it holds no hash; nil if there is none; else {number of fields,
-- milliseconds until it expires or a negative number, {size, start} of each named field, nil where absent,
-- {name, size, start} of each other field}.
local most, read, others = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local named = {}
for i = 4, #ARGV do named[ARGV[i]] = true end

local function start(key, field, length)
  local size = redis.call('HSTRLEN', key, field)
  local text = size <= read and redis.call('HGET', key, field) or ''
  return size, string.sub(text or '', 1, length)
end

local function details(key)
  local count = redis.pcall('HLEN', key)
  if type(count) == 'table' then
    return count.err
  elseif count == 0 then
    return false
  end
  local fields, rest = {}, {}
  for i = 4, #ARGV do
    if redis.call('HEXISTS', key, ARGV[i]) == 1 then
      fields[i - 3] = {start(key, ARGV[i], most)}
    else
      fields[i - 3] = false
    end
  end
  if others > 0 then
    for _, name in ipairs(redis.call('HRANDFIELD', key, others + #ARGV)) do
      if not named[name] and #rest < others then
        rest[#rest + 1] = {string.sub(name, 1, most), start(key, name, 1000)}
      end
    end
  end
  return {count, redis.call('PTTL', key), fields, rest}
end

local found = {}
for i, key in ipairs(KEYS) do found[i] = details(key) end
return found
