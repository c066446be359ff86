-- Functions for all scripts: errors, reads, long lists, the clock.
--
-- Redis undoes nothing when a command of a script fails: the user may lack a right, or a key may hold another type. So
-- each script that moves ids reads first, then adds, and removes last. Before it adds, it proves that the removals will
-- succeed, by a call of the same command that removes nothing: rights and types do not change while a script runs.
--
-- Needs  nothing

local function is_error(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

local function is_wrong_type(reply)
  return is_error(reply) and string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end

-- Return the text of an error that `pcall` has caught: Redis 7 raises a table, Redis 6 a text.
local function error_text(failure)
  return type(failure) == 'table' and failure.err or tostring(failure)
end

-- Call a command that reads. Returns nil and the server's error text if the key holds another type.
local function read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if is_error(reply) then
    if is_wrong_type(reply) then
      return nil, reply.err
    end
    redis.call(command, key, ...) -- raises the error as the server words it
  end
  return reply
end

-- Raise the server's error if this user may not call a command. The call has no effect: `key` holds another type.
local function require_right(command, key, ...)
  read(command, key, ...)
end

-- Call a command with the items of a list, from the item `first` (1) to the item `last` (#list), at most 1,000 at a
-- time: Lua passes only some thousand arguments on. Returns the reply; of several calls, their replies in one list if
-- they are lists. Without items it calls nothing and returns an empty list.
local function call_with_all(command, key, list, first, last)
  first, last = first or 1, last or #list
  if last - first < 1000 then
    return last < first and {} or redis.call(command, key, unpack(list, first, last))
  end
  local replies = {}
  for start = first, last, 1000 do
    local reply = redis.call(command, key, unpack(list, start, math.min(start + 999, last)))
    for _, item in ipairs(type(reply) == 'table' and reply or {}) do replies[#replies + 1] = item end
  end
  return replies
end

-- Return a list with its items in the opposite order.
local function reversed(list)
  local found = {}
  for i = #list, 1, -1 do found[#found + 1] = list[i] end
  return found
end

-- Return the server's clock as `TIME` tells it, in whole milliseconds.
local function milliseconds(time)
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
