-- Functions about lines: each holds the elements of one caller that have left the queue and may not begin yet.
--
-- An element of a line is a number, a colon, the task's submission or nothing, a blank, and the element of the queue.
-- By the numbers, all go back in their order. By the submission, a task that has been submitted anew, and waits
-- elsewhere, is told from one that still waits here.
--
-- Needs  nothing

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

-- Return all elements of lines in their order, the keys of the lines, and submissions by element.
local function read_lines(messages)
  local found, elements, keys, submissions = {}, {}, {}, {}
  for _, caller in ipairs(redis.call('ZRANGE', keys_of_lines(messages).lines, 0, -1)) do
    local key = line_of(messages, caller)
    keys[#keys + 1] = key
    for _, parked in ipairs(redis.call('LRANGE', key, 0, -1)) do
      local element, submission, number = split_parked(parked)
      found[#found + 1], submissions[element] = {element, number, #found}, submission
    end
  end
  table.sort(found, function(a, b) return a[2] < b[2] or a[2] == b[2] and a[3] < b[3] end)
  for i, one in ipairs(found) do elements[i] = one[1] end
  return elements, keys, submissions
end
