-- Functions that bring messages with their tasks' details, and hold them under a broker's lease.
--
-- Needs  connection/common, queue/messages, queue/cancellation

-- Write a time as RFC 3339 in UTC, with microseconds. The server's clock counts: a worker may have blocked for long.
local function timestamp(time)
  local days, seconds = math.floor(time[1] / 86400) + 719468, time[1] % 86400 -- since 0000-03-01
  local day = days % 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  year = year + 400 * math.floor(days / 146097) + (month >= 10 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month < 10 and month + 3 or month - 9, day,
    math.floor(seconds / 3600), math.floor(seconds / 60) % 60, seconds % 60, time[2])
end

-- Read a task's details. Returns a list of names and values, of all fields or at least of those that a worker reads;
-- or the server's error that the key holds no hash. Raises other errors.
--
-- A task has few of the fields that a worker reads, and to ask for each takes twice as long as to read all. But others
-- may have stored something large there, as the output of an earlier run: then only the first such tasks are read so.
local function fields_of(key, options)
  if options.unread < 16384 then
    local found = redis.pcall('HGETALL', key)
    if found.err and not is_wrong_type(found) then
      redis.call('HGETALL', key) -- raises the error as the server words it
    end
    return found
  end
  local names = {}
  for name in pairs(options.places) do names[#names + 1] = name end
  local values, failure = read('HMGET', key, unpack(names))
  if not values then
    return {err = failure}
  end
  local found = {}
  for i, name in ipairs(names) do
    if values[i] then
      found[#found + 1], found[#found + 2] = name, values[i]
    end
  end
  return found
end

-- Read what a worker needs to know of a message.
--
-- `number`: of a message that has just been made, if nothing says that a process has died with its task; else nil.
-- Returns a row as `hold` returns it except the deaths, the key of the details, the submission, and whether the message
-- is stale: the task has been submitted again since the message was made, and waits elsewhere.
local function row_of(id, body, task, options, number)
  local carried, for_submission
  local made = not body and task
  if body then
    task, carried, for_submission = task_of(body, options.actor)
  end
  if not task then
    return {id, false, body, 0, false, 0, false}
  end
  local key = options.details .. task
  if carried and redis.call('EXISTS', key) == 0 then -- a broker that is not ours sent the message
    for name, value in pairs(carried) do
      if type(value) == 'string' then
        redis.call('HSET', key, name, value)
      end
    end
  end
  local found = fields_of(key, options)
  if found.err then
    return {id, made, body, 0, found.err, 0, false}, key
  end
  local places, asked = options.places, options.asked
  local row, last = {number, task, '', false, false, false, false, false}, 1 -- of a simple task
  local status, error, submission, expires
  for i = 1, #found, 2 do
    local place, value = places[found[i]] or asked + 1, found[i + 1]
    if place > asked then
      options.unread = options.unread + #value
    elseif place > 0 then
      row[place + 3] = value
      if place > last then
        last = place
      end
    elseif place == -1 then
      status = value
    elseif place == -2 then
      error = value
    elseif place == -3 then
      submission = value
    else
      expires = value
    end
  end
  -- Absent values at the end need not be sent.
  if number and last <= options.simple and row[4] and not error and not expires then
    row[3] = submission or ''
    for place = #row, last + 4, -1 do row[place] = nil end
    return row, key, submission
  end
  local details = {}
  for place = 1, last do details[place] = row[place + 3] or false end
  local cancelled = is_cancelled(status, error) and 1 or 0
  local stale = body and submission and submission ~= for_submission
  return {id, made, body, 0, details, cancelled, submission or false}, key, submission, stale
end

-- Read the options of `hold` from the arguments of `fetch.lua` and `claim.lua`, which are the same.
local function hold_options(time)
  return {
    actor = ARGV[11],
    details = ARGV[5],
    plain = tonumber(ARGV[12]),
    simple = tonumber(ARGV[13]),
    asked = tonumber(ARGV[14]),
    places = PLACES.details,
    unread = 0,
    head = dated(ARGV[8], time),
    idle = tonumber(ARGV[6]),
    channel = ARGV[7],
    time = time,
  }
end

-- Hold messages.
--
-- `elements`: of the queue or of RabbitMQ; `bodies`: of those that are messages, by position, as `bodies_of` returns
-- them.
-- `keys`: bodies, acks, deliveries (nil: no process has died), sequence (needed if an element is a task's id).
-- `options`: actor, its name; details, prefix of details keys; places, of the details' fields by name: from 1 those
-- that a worker may read, -1 status, -2 error, -3 submission, -4 expireFinished; asked, how many this worker reads;
-- plain, how many come before the terms; simple, how many of these a simple task has at most; unread, how many bytes
-- of other fields this call has read; head, start of a message, of `dated`; idle, how many of the messages begin to run
-- at once; channel, start of the names of channels for states; time, as `TIME` tells.
-- `remove`: takes the elements from where they are; it cannot fail.
-- `submissions`: of tasks that were parked, by element: one that has been submitted again waits elsewhere, too.
-- Returns for each message {message id, task id, body, deaths, details, 1 if cancelled, else 0, submission}. A message
-- that has just been made has its task's id and no body, any other has a body and no task id. Details is a list of
-- values (nil where absent) up to the last that is present, or the server's error text where the details key holds no
-- hash. For a simple task, whose message has just been made, it returns {number of the message, task id, submission or
-- nothing, details...}: it is not cancelled, no process has died with it, it has not failed before, and its details do
-- not say when they expire. And it returns the ids of the messages.
local function hold(elements, bodies, keys, options, remove, submissions)
  -- 1. Read.
  local number, rows, details_keys, ids, made, stale = nil, {}, {}, {}, {}, {}
  local n, m, deliveries = 0, 0, keys.deliveries
  for i, element in ipairs(elements) do
    local id, body = element, bodies[i]
    if not body then
      number = (number or last_message_number(keys.sequence, options.time)) + 1
      id = message_id(number)
    end
    local row, key, submission, is_stale = row_of(id, body, element, options, not body and not deliveries and number)
    local parked_for = not body and submissions and submissions[element]
    if is_stale or parked_for and (submission or '') ~= parked_for then
      stale[#stale + 1] = id
    else
      if deliveries then
        row[4] = redis.call('HGET', deliveries, body and id or ':' .. element) or 0
      end
      n = n + 1
      ids[n], rows[n] = id, row
      if n <= options.idle then
        details_keys[n] = key
      end
      if not body then
        made[m + 1], made[m + 2], m = id, message_of(id, element, submission, options.head), m + 2
      end
    end
  end
  -- 2. Add.
  if number then
    redis.call('SET', keys.sequence, string.format('%d', number))
    call_with_all('HSET', keys.bodies, made)
  end
  if not pcall(call_with_all, 'SADD', keys.acks, ids) then
    for place = 1, #made, 2 do redis.pcall('HDEL', keys.bodies, made[place]) end
    call_with_all('SADD', keys.acks, ids) -- raises the same error
  end
  -- 3. Remove. From here on nothing may raise an error: the messages are held.
  remove()
  for _, id in ipairs(stale) do
    redis.pcall('HDEL', keys.bodies, id)
    if keys.deliveries then
      redis.pcall('HDEL', keys.deliveries, id)
    end
  end
  if keys.deliveries then
    for _, row in ipairs(rows) do
      local id, task, deaths = row[1], row[2], row[4]
      if task and deaths ~= 0 then
        move_deaths(keys.deliveries, task, id, deaths)
      end
      row[4] = tonumber(deaths) or 0
    end
  end
  local now
  for i = 1, math.min(options.idle, #rows) do
    local row, key = rows[i], details_keys[i]
    local is_simple = type(row[1]) == 'number'
    local details = not is_simple and row[5]
    -- A script, or a reference to one, is there: the first and the seventh of DETAIL_FIELDS. The terms of a task may
    -- say that it does not begin any more: its worker marks it.
    local begins = type(details) == 'table' and (details[1] or details[7]) and #details <= options.plain
    if is_simple or begins and row[4] == 0 and row[6] == 0 then
      now = now or timestamp(options.time)
      redis.pcall('HSET', key, FIELD.status, STATUS.processing, FIELD.updatedAt, now)
      redis.pcall('PUBLISH', options.channel .. key, WORD.processing)
    end
  end
  return rows, ids
end

-- Wake a bridge that waits for room, if one does.
local function tell_of_room(full_key, room_key)
  if redis.pcall('DEL', full_key) == 1 then
    redis.pcall('RPUSH', room_key, '1')
    redis.pcall('PEXPIRE', room_key, 10000)
  end
end
