-- Functions that name queues and keys, as protocol/keys.py does.
--
-- Needs  nothing

-- Name the dramatiq queue of a circle.
local function queue_of(circle)
  return 'rhai-' .. string.gsub(circle, '[^A-Za-z0-9_-]', function(byte)
    return string.format('.%02x', string.byte(byte))
  end)
end

-- Say whether a queue belongs to a circle: our workers serve no other queues.
local function is_circle_queue(queue)
  return string.sub(queue, 1, 5) == 'rhai-'
end

-- Name the keys of a queue. `messages`: the key of its list.
local function keys_of(messages)
  local dead = string.gsub(messages, '%.DQ$', '') .. '.XQ'
  return {
    bodies = messages .. '.msgs',
    delayed = messages .. '.delayed',
    delayed_messages = messages .. '.delayed_messages',
    wake = messages .. '.wake',
    dead = dead,
    dead_bodies = dead .. '.msgs',
    dead_reasons = dead .. '.reasons',
  }
end

-- Name the sets of messages that brokers hold. `start`: of the names of all such sets.
local function acks_of(brokers, start, queue)
  local keys = {}
  for i, broker in ipairs(brokers) do keys[i] = start .. broker .. '.' .. queue end
  return keys
end
