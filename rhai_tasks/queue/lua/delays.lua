-- A function about delayed tasks and messages.
--
-- Needs  nothing

-- Wake the bridge, which may sleep until something later is due. `key`: the list that it waits for.
local function wake(key)
  redis.pcall('LPUSH', key, '1')
  redis.pcall('LTRIM', key, 0, 0)
  redis.pcall('PEXPIRE', key, 10000)
end
