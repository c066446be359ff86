-- Functions about the elements of a queue: each is the id of a message, or the id of a task that is not a message yet.
--
-- Needs  connection/common, queue/keys

-- Say whether a message is held by a worker, published to RabbitMQ or delayed. If so, an element of the queue that has
-- the same text is not this message.
--
-- `places`: `published` and `delayed_messages`, keys; `acks`, keys of sets of held messages.
local function is_elsewhere(id, places)
  if read('ZSCORE', places.published, id) or read('ZSCORE', places.delayed_messages, id) then
    return true
  end
  for _, acks in ipairs(places.acks) do
    if read('SISMEMBER', acks, id) == 1 then
      return true
    end
  end
  return false
end

-- Return the bodies of those elements that are messages, by position; false: the element is a task's id.
--
-- A task's id may equal a message's id. An element is a message if it has a body, that message is not elsewhere, and no
-- element before it is the same message.
--
-- `queue`: its keys messages, bodies, published, leases; acks, start of the names of sets of held messages; name; gone,
-- such sets of brokers that have no lease, or nil.
local function bodies_of(elements, queue)
  local bodies, seen, places = call_with_all('HMGET', queue.bodies, elements), {}, nil
  for i, id in ipairs(elements) do
    if bodies[i] then
      if not places then
        local acks = acks_of(read('ZRANGE', queue.leases, 0, -1) or {}, queue.acks, queue.name)
        for _, key in ipairs(queue.gone or {}) do acks[#acks + 1] = key end
        places = {published = queue.published, delayed_messages = keys_of(queue.messages).delayed_messages, acks = acks}
      end
      if seen[id] or is_elsewhere(id, places) then
        bodies[i] = false
      else
        seen[id] = true
      end
    end
  end
  return bodies
end

-- Call `on_message` with each element that is a message and its body, `on_task` with each other one: no worker has ever
-- held it. `queue`: as for `bodies_of`.
local function sort_elements(elements, queue, on_message, on_task)
  local bodies = bodies_of(elements, queue)
  for i, element in ipairs(elements) do
    if bodies[i] then
      on_message(element, bodies[i])
    else
      on_task(element)
    end
  end
end

-- Read a message of the actor `actor`. Returns the id of its task, the details that it carries (nil: none), the
-- submission that it is for (nil: none), and all its fields; nothing if it is another actor's message, or unreadable.
local function task_of(body, actor)
  local readable, message = pcall(cjson.decode, body)
  if not readable or type(message) ~= 'table' or message.actor_name ~= actor then
    return nil
  end
  local args, kwargs, options = message.args, message.kwargs, message.options
  if type(args) ~= 'table' or type(args[1]) ~= 'string' or type(kwargs) ~= 'table' or type(options) ~= 'table' then
    return nil
  end
  local submission = type(options.submission) == 'string' and options.submission or nil
  return args[1], type(kwargs.details) == 'table' and kwargs.details or nil, submission, message
end

-- Write the id of a message that was made here.
local function message_id(number)
  return string.format('m-%d', number)
end

-- Return the number of the last message that was made; the next one has the number after it.
--
-- Numbers follow the server's clock and never go back: a server that has lost its last second gives out no number that
-- a worker may still hold for another task.
local function last_message_number(sequence_key, time)
  local stored, now = tonumber(read('GET', sequence_key) or 0) or 0, time[1] * 1000000 + time[2]
  return stored > now and stored < 9000000000000000 and stored or now -- larger ones are not exact
end

-- Date the start of a message, which Python has written up to its time. `time`: as `TIME` tells.
local function dated(head, time)
  return head .. string.format('%d', milliseconds(time)) .. ',"args":['
end

-- Write the message of a task. `submission`: nil or empty: it has none; `head`: its start, of `dated`.
local function message_of(id, task, submission, head)
  local option = (submission or '') ~= '' and ',"submission":' .. cjson.encode(submission) or ''
  return head .. cjson.encode(task) .. '],"options":{"redis_message_id":"' .. id .. '"' .. option
    .. '},"message_id":"' .. id .. '"}'
end

-- Move the count of deaths that `give_back.lua` has stored under a task's id to the message made of the task. An error
-- leaves the count where it is.
local function move_deaths(deliveries_key, task, id, deaths)
  if not is_error(redis.pcall('HSET', deliveries_key, id, deaths)) then
    redis.pcall('HDEL', deliveries_key, ':' .. task)
  end
end
