-- Functions about lines: each holds the elements of one caller that have left the queue and may not begin yet.
--
-- An element of a line is a number, a colon, the task's submission or nothing, a blank, and the element of the queue.
-- By the numbers, all go back in their order. By the submission, a task that has been submitted again, and waits
-- elsewhere, differs from one that still waits here.
--
-- Needs  connection/common

-- Name the keys of a circle's lines: the sorted set of callers that have one, and the number of the last element.
local function keys_of_lines(messages)
  return {lines = messages .. '.lines', number = messages .. '.lines.number'}
end

-- Name the list that is a caller's line.
local function line_of(messages, caller)
  return messages .. '.line.' .. caller
end

-- Split an element of a line. Returns its element of the queue, the submission, the number.
local function split_parked(parked)
  local number, submission, element = string.match(parked, '^(%d+):([^ ]*) (.*)$')
  return element or parked, submission or '', tonumber(number) or 0
end

-- Return the caller of a task, and the submission that its details are of. `details`: prefix of details keys.
local function caller_of_task(details, task)
  local fields = redis.pcall('HMGET', details .. task, FIELD.callerId, FIELD.publicKey, FIELD.submission)
  if fields.err then
    fields = read('HMGET', details .. task, FIELD.callerId) or {} -- raises the error unless it is no hash
  end
  return fields[1] or fields[2] or '', fields[3] or ''
end

-- Write an element of a line.
local function parked_form(number, submission, element)
  return string.format('%.0f:', number) .. submission .. ' ' .. element -- `%s` would end at a NUL
end

-- Return the ids of the messages that are parked: they are at the heads of lines, with the number 0.
local function messages_in_lines(messages)
  local ids = {}
  for _, caller in ipairs(redis.call('ZRANGE', keys_of_lines(messages).lines, 0, -1)) do
    local first, size = 0, 4
    repeat
      local some, last_number = redis.call('LRANGE', line_of(messages, caller), first, first + size - 1), nil
      for _, parked in ipairs(some) do
        local element, _, number = split_parked(parked)
        ids[#ids + 1], last_number = number == 0 and element or nil, number
      end
      first, size = first + #some, size * 2
    until last_number ~= 0
  end
  return ids
end
