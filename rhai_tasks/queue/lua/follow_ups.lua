-- A function about follow-ups: the messages, results and groups that go on when a task ends (follow_ups.py).
--
-- Needs  connection/common, queue/keys, queue/letters, queue/delays

-- Make two functions: one proves that follow-ups can be done, one does them.
--
-- They are made for a call that needs them: a script pays for each function that it makes, and few tasks are composed.
-- `acks`, `dead`: keys of a set and of a sorted set, to try commands on.
local function follow_ups(namespace, acks, dead)
  local now -- the server's millisecond

  -- Return the first error among these replies. A key of a wrong type must not hold up other follow-ups.
  local function refused(...)
    for _, reply in ipairs({...}) do
      if is_error(reply) then return reply.err end
    end
  end

  -- Enqueue a message, or make it a dead letter of its queue if the queue does not take it. Returns what went wrong.
  local function enqueue(queue, id, body, delay)
    local messages = namespace .. ':' .. queue
    local keys = keys_of(messages)
    local why = refused(redis.pcall('HSET', keys.bodies, id, body))
    if not why and delay == '0' then
      why = refused(redis.pcall('RPUSH', messages, id))
    elseif not why then
      why = refused(redis.pcall('ZADD', keys.delayed_messages, string.format('%.0f', now + delay), id))
      wake(keys.wake)
    end
    if not why then
      if is_circle_queue(queue) then
        redis.pcall('SADD', namespace .. ':__queues__', queue)
      end
      return
    end
    redis.pcall('HDEL', keys.bodies, id)
    why = 'queue ' .. queue .. ' refuses a message: ' .. why
    local lost = refused(add_dead_letter(redis.pcall, keys, id, body, why, now))
    return lost and why .. '; its dead letters refuse it, too, and it is lost: ' .. lost or why
  end

  -- Count a task of a group as dramatiq's Barrier does. Returns whether it was the last one, and what went wrong.
  local function pass(barrier)
    local left = redis.pcall('GET', barrier)
    local number = type(left) == 'string' and tonumber(left)
    if not number then
      return false, 'its group has no barrier in this database, and calls nobody: ' .. (refused(left)
        or 'GroupCallbacks wants dramatiq\'s RedisBackend with the URL of the workers')
    end
    local why
    if number > 1 then
      why = refused(redis.pcall('DECR', barrier))
    else
      redis.pcall('RPUSH', barrier .. '@events', 'x')
      redis.pcall('PEXPIRE', barrier .. '@events', 86400000)
    end
    local lifetime = redis.pcall('PTTL', barrier)
    if type(lifetime) == 'number' and lifetime >= 0 and lifetime < 86400000 then
      redis.pcall('PEXPIRE', barrier, 86400000) -- a day after each task, as is dramatiq's default
    end
    return number <= 1, why
  end

  -- Do those of `count` follow-ups from `first` on that follow this outcome. Returns what went wrong.
  local function follow(outcome, first, count)
    local failure, goes_on = nil, true
    for f = first, first + 6 * count - 1, 6 do
      local when, kind, place, name, body, duration = unpack(ARGV, f, f + 5)
      local why
      if when ~= outcome or not goes_on then
        why = nil
      elseif kind == 'message' then
        why = enqueue(place, name, body, duration)
      elseif kind == 'barrier' then
        goes_on, why = pass(place)
      else
        why = refused(
          redis.pcall('DEL', place),
          redis.pcall('LPUSH', place, body),
          redis.pcall('PEXPIRE', place, duration)
        )
      end
      failure = failure or why
    end
    return failure
  end

  -- Prove that follow-ups can be done, each as far as its own keys allow.
  local function require_follow_ups(first, count)
    for f = first, first + 6 * count - 1, 6 do
      local kind = ARGV[f + 1]
      if kind == 'message' then
        require_right('HSET', acks, '', '')
        require_right('RPUSH', acks, '')
      elseif kind == 'barrier' then
        require_right('GET', acks)
        require_right('DECR', acks)
      else
        require_right('LPUSH', acks, '')
      end
    end
    read('ZADD', dead, 'XX', 0, '')
    now = milliseconds(redis.call('TIME'))
  end

  return require_follow_ups, follow
end
