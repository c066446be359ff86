-- Functions about the number of changes: how often tasks were cancelled, or submitted again. While it stays, a worker
-- need not read again what it has read of a task.
--
-- Needs  connection/common

-- Name the number's key, as protocol/keys.py does.
local function changes_of(namespace)
  return namespace .. ':__changes__'
end

-- Return the number as text, empty before the first change; false: there is something else, so nothing is known.
local function changes_so_far(key)
  local number, wrong = read('GET', key)
  return not wrong and (not number and '' or string.find(number, '^%d+$') and #number < 16 and number) or false
end

-- Count a change, before it is made. Raises the server's error if it refuses that. Where there is no number, workers
-- read everything again.
local function note_change(namespace)
  local key = changes_of(namespace)
  local noted = redis.pcall('INCR', key)
  local is_number = not is_wrong_type(noted)
  for _, text in ipairs(is_error(noted) and {'not an integer', 'overflow'} or {}) do
    is_number = is_number and not string.find(noted.err, text, 1, true)
  end
  if is_error(noted) and is_number then
    redis.call('INCR', key)
  end
end
