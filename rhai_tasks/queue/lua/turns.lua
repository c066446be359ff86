-- Functions about the turns of callers, for a circle that a bridge serves with `--fair`.
--
-- Each caller has a virtual time: the worker-milliseconds that it has used while tasks waited, divided by its weight.
-- The waiting caller with the smallest one is next. A task is charged when it begins, by the average of its caller's
-- last ones, and what it used beyond, or did not, when it ends; one that runs for longer is charged on as it runs.
-- tests/turns.py is a model of these functions.
--
-- Numbers of callers and charges are packed as doubles: to write and read them as text took half of the time of a turn.
--
-- Needs  connection/common, queue/lines

-- Name the keys of turns: the hash of virtual times, which exists while a bridge keeps turns, and the hash of charges,
-- from the id of a held message to what its caller was charged.
local function keys_of_turns(messages)
  return {turns = messages .. '.turns', charges = messages .. '.turns.charges'}
end

-- Write a number, at such length that the server keeps its hash as a table: it searches a hash of short values from the
-- beginning.
local function number_of_turns(number)
  return string.format('%-65.3f', number)
end

-- Say whether a number that was read is one that `write` may have written: finite, not NaN, and not nil.
local function is_number_of_turns(number)
  return number ~= nil and math.abs(number) < 1e15 -- false for NaN, too
end

-- Read the turns of a circle. Returns nil where no bridge keeps turns, else a table with these functions; they are made
-- here, so that scripts of other circles need not make them. `time`: as `TIME` tells.
local function read_turns(messages, time)
  local keys, numbers = keys_of_turns(messages), {'highest', 'since', 'settled', 'mean'}
  local known = read('HMGET', keys.turns, unpack(numbers))
  if not (known and tonumber(known[1] or '')) then
    return nil
  end
  local now = milliseconds(time) + time[2] % 1000 / 1000
  local turns = {
    highest = tonumber(known[1]), -- of all virtual times
    since = math.min(tonumber(known[2] or now) or now, now), -- when tasks began to wait; the clock may have gone back
    settled = tonumber(known[3] or 0) or 0, -- when running tasks were charged last
    mean = tonumber(known[4] or ''), -- milliseconds of a task, of all callers
    callers = {}, -- by caller: {virtual = its virtual time, mean = milliseconds of its tasks}, nil: not known
    changed = {}, -- callers whose virtual times are to be written
  }

  -- Read what is known of callers, where it has not been read yet.
  function turns.load(callers)
    local fields, names = {}, {}
    for _, caller in ipairs(callers) do
      if not turns.callers[caller] then
        fields[#fields + 1], names[#names + 1] = 'caller ' .. caller, caller
        turns.callers[caller] = {}
      end
    end
    for i, one in ipairs(call_with_all('HMGET', keys.turns, fields)) do
      if one and #one == 16 then
        local caller, virtual, mean = turns.callers[names[i]], struct.unpack('>dd', one)
        caller.virtual = is_number_of_turns(virtual) and virtual or nil
        caller.mean = is_number_of_turns(mean) and mean > 0 and mean or nil
      end
    end
  end

  -- Set the virtual time of a caller that is loaded.
  function turns.set(caller, virtual)
    turns.callers[caller].virtual = virtual
    turns.highest = math.max(turns.highest, virtual)
    turns.changed[caller] = true
  end

  -- Read charges; a caller's tasks of one turn have the same. Returns for each, by position, {begun = when the task
  -- began, since = the time from which it counts, charged = milliseconds, weight, caller}, false: there is none; and
  -- those that differ. Their callers are loaded.
  local function read_charges(charges)
    local found, seen, callers, different = {}, {}, {}, {}
    for i, charge in ipairs(charges) do
      local one = charge and seen[charge]
      if one == nil and charge and #charge >= 65 then
        local begun, since, charged, weight = struct.unpack('>dddd', charge)
        one = is_number_of_turns(begun) and is_number_of_turns(since) and is_number_of_turns(charged) and weight > 0
          and {begun = begun, since = since, charged = charged, weight = weight, caller = string.sub(charge, 66)}
        if one then
          callers[#callers + 1], different[#different + 1] = one.caller, one
          if since < turns.since or since > now then -- it was charged for a time that counts no more
            one.begun, one.since, one.charged = math.min(begun, now), turns.since, 0
          end
        end
        seen[charge] = one
      end
      found[i] = one or false
    end
    turns.load(callers)
    return found, different
  end

  -- Write a charge, as long as `number_of_turns` makes numbers, and for the same reason.
  local filler = string.rep(' ', 33)
  local function charge_of(begun, since, charged, weight, caller)
    return struct.pack('>dddd', begun, since, charged, weight) .. filler .. caller
  end

  local function add_use(caller, used, weight)
    turns.set(caller, (turns.callers[caller].virtual or turns.highest) + used / weight)
  end

  -- Charge tasks that run for longer than they were charged for; forget those that no broker holds any more. `acks`:
  -- keys of the sets of held messages. Does so the less often, the more tasks run: it costs some microseconds for each.
  --
  -- While tasks wait, a bridge calls this every few seconds. So a longer time has not passed: the clock has jumped
  -- ahead, or nobody was there. A caller whose tasks run would have to wait until the others have used as much.
  function turns.settle(acks)
    if math.abs(now - turns.settled) < 10 + redis.call('HLEN', keys.charges) / 2 then
      return
    end
    local passed = now - math.max(turns.settled, turns.since)
    local skipped = math.max(passed - 10000, 0)
    turns.settled = now
    local charges, ids, values, held = redis.call('HGETALL', keys.charges), {}, {}, {}
    for i = 1, #charges, 2 do ids[#ids + 1], values[#values + 1] = charges[i], charges[i + 1] end
    for _, key in ipairs(#ids > 0 and acks or {}) do
      for i, is_held in ipairs(call_with_all('SMISMEMBER', key, ids)) do held[i] = held[i] or is_held == 1 end
    end
    local ones, changed, gone = read_charges(values), {}, {}
    for i, id in ipairs(ids) do
      local one = ones[i]
      if not held[i] or not one then
        gone[#gone + 1] = id
      else
        local begun, since = math.min(one.begun + skipped, now), math.min(one.since + skipped, now)
        local used = math.max(now - since, one.charged)
        if used > one.charged or skipped > 0 then
          add_use(one.caller, used - one.charged, one.weight)
          changed[#changed + 1], changed[#changed + 2] = id, charge_of(begun, since, used, one.weight, one.caller)
        end
      end
    end
    call_with_all('HSET', keys.charges, changed)
    call_with_all('HDEL', keys.charges, gone)
  end

  -- Return the smallest virtual time of the callers that wait; nil: none does.
  function turns.first()
    return tonumber(redis.call('ZRANGE', keys_of_lines(messages).lines, 0, 0, 'WITHSCORES')[2])
  end

  -- Let a caller wait that is loaded, and of whom no task has waited. `first`: as the function returned it.
  function turns.join(caller, first)
    local start = first and first - 1 -- it is next, but for its own past
    if not first then -- no task waited, so the used threads were taken from no other caller
      start, turns.since = turns.highest, now
    end
    turns.set(caller, math.max(turns.callers[caller].virtual or start, start))
  end

  -- Return how many milliseconds a caller's next task is charged for when it begins.
  function turns.expected(caller)
    return turns.callers[caller].mean or turns.mean or 1000
  end

  -- Note what messages are charged that begin now. `ids`: of the messages; `charges`: by position, {milliseconds,
  -- weight, caller}, nil: nobody is charged.
  function turns.charge(ids, charges)
    local values, n, written = {}, 0, {} -- one turn's are the same
    for i, id in ipairs(ids) do
      local one = charges[i]
      if one then
        written[one] = written[one] or charge_of(now, now, one[1], one[2], one[3])
        values[n + 1], values[n + 2], n = id, written[one], n + 2
      end
    end
    call_with_all('HSET', keys.charges, values)
  end

  -- Return the callers that messages are charged to, by position; false: not known. `ids`: of the messages.
  function turns.callers_of(ids)
    local callers = call_with_all('HMGET', keys.charges, ids)
    for i, charge in ipairs(callers) do callers[i] = charge and #charge >= 65 and string.sub(charge, 66) end
    return callers
  end

  -- Charge what tasks used that have ended. `ids`: of their messages; `seconds`: by position, how long they ran.
  function turns.finish(ids, seconds)
    local ones, different = read_charges(call_with_all('HMGET', keys.charges, ids))
    for i, one in ipairs(ones) do
      if one then
        -- A worker has more to do for a task than to run its script, and even one that runs none takes a turn.
        local ran = math.max(math.min(now - one.begun, (seconds[i] or math.huge) * 1000), 0.1)
        one.owed = (one.owed or 0) + math.max(math.min(now - one.since, ran), 0.1) - one.charged
        local caller = turns.callers[one.caller]
        caller.mean = caller.mean and caller.mean + 0.2 * (ran - caller.mean) or ran
        turns.mean = turns.mean and turns.mean + 0.05 * (ran - turns.mean) or ran
      end
    end
    for _, one in ipairs(different) do add_use(one.caller, one.owed, one.weight) end
    call_with_all('HDEL', keys.charges, ids)
  end

  -- Forget some callers that would begin again where they are, once many are known: more than have come.
  local function forget(come)
    if redis.call('HLEN', keys.turns) < 10000 then
      return
    end
    local some, first = redis.call('HRANDFIELD', keys.turns, 20 + 2 * come, 'WITHVALUES'), turns.first()
    local gone = {}
    for i = 1, #some, 2 do
      local virtual = #some[i + 1] == 16 and struct.unpack('>d', some[i + 1])
      if string.sub(some[i], 1, 7) == 'caller ' and not (virtual and first and virtual >= first) then
        gone[#gone + 1] = some[i]
      end
    end
    call_with_all('HDEL', keys.turns, gone)
  end

  -- Write what has changed.
  function turns.write()
    local values, scores = {}, {}
    for caller in pairs(turns.changed) do
      local one, n = turns.callers[caller], #values
      values[n + 1], values[n + 2] = 'caller ' .. caller, struct.pack('>dd', one.virtual, one.mean or 0)
      scores[n + 1], scores[n + 2] = one.virtual, caller
    end
    for _, name in ipairs(numbers) do
      if turns[name] then
        values[#values + 1], values[#values + 2] = name, number_of_turns(turns[name])
      end
    end
    call_with_all('HSET', keys.turns, values)
    for first = 1, #scores, 1000 do
      local last = math.min(first + 1000, #scores + 1) - 1
      redis.call('ZADD', keys_of_lines(messages).lines, 'XX', unpack(scores, first, last))
    end
    turns.changed = {}
    forget(#scores / 2)
  end

  return turns
end
