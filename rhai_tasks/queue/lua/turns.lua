-- Functions about the turns of callers, for a circle that a bridge serves with `--fair`.
--
-- Each caller has a virtual time: the worker-milliseconds that it has used while tasks waited, divided by its weight.
-- The waiting caller with the smallest one is next. A task is charged when it begins, by the average of its caller's
-- last ones, and what it used beyond, or did not, when it ends; one that runs for longer is charged on as it runs.
-- tests/turns.py is a model of these functions.
--
-- Needs  connection/common, queue/keys, queue/messages, queue/lines

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
      local virtual, mean = string.match(one or '', '^(%S+) (%S+)$')
      turns.callers[names[i]] = {virtual = tonumber(virtual), mean = tonumber(mean)}
    end
  end

  -- Set the virtual time of a caller that is loaded.
  function turns.set(caller, virtual)
    turns.callers[caller].virtual = virtual
    turns.highest = math.max(turns.highest, virtual)
    turns.changed[caller] = true
  end

  -- Read a charge. Returns when the task began, the time from which it counts, the milliseconds charged, the weight,
  -- the caller; nothing if there is no charge.
  local function read_charge(charge)
    local begun, since, charged, weight = string.match(charge or '', '^(%S+) (%S+) (%S+) (%S+) ')
    local caller = begun and string.sub(charge, 66)
    begun, since, charged, weight = tonumber(begun), tonumber(since), tonumber(charged), tonumber(weight)
    if not (begun and since and charged and weight) then
      return nil
    elseif since < turns.since then
      return begun, turns.since, 0, weight, caller -- it was charged for a time that counts no more
    end
    return begun, since, charged, weight, caller
  end

  -- Write a charge, as long as `number_of_turns` makes numbers, and for the same reason.
  local function charge_of(begun, since, charged, weight, caller)
    return string.format('%-64s ', string.format('%.3f %.3f %.3f %.6g', begun, since, charged, weight)) .. caller
  end

  -- Read the callers of charges, in one command.
  local function load_callers(charges)
    local callers = {}
    for i, charge in ipairs(charges) do callers[i] = charge and string.sub(charge, 66) or '' end
    turns.load(callers)
  end

  local function add_use(caller, used, weight)
    turns.set(caller, (turns.callers[caller].virtual or turns.highest) + used / weight)
  end

  -- Charge tasks that run for longer than they were charged for; forget those that no broker holds any more. `acks`:
  -- keys of the sets of held messages. Does so the less often, the more tasks run: it costs some microseconds for each.
  function turns.settle(acks)
    if math.abs(now - turns.settled) < 10 + redis.call('HLEN', keys.charges) / 2 then
      return
    end
    turns.settled = now
    local charges, ids, values, held = redis.call('HGETALL', keys.charges), {}, {}, {}
    for i = 1, #charges, 2 do ids[#ids + 1], values[#values + 1] = charges[i], charges[i + 1] end
    for _, key in ipairs(#ids > 0 and acks or {}) do
      for i, is_held in ipairs(call_with_all('SMISMEMBER', key, ids)) do held[i] = held[i] or is_held == 1 end
    end
    load_callers(values)
    local changed, gone = {}, {}
    for i, id in ipairs(ids) do
      local begun, since, charged, weight, caller = read_charge(values[i])
      local used = begun and math.max(now - since, 0)
      if not held[i] or not begun then
        gone[#gone + 1] = id
      elseif used > charged then
        add_use(caller, used - charged, weight)
        changed[#changed + 1], changed[#changed + 2] = id, charge_of(begun, since, used, weight, caller)
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

  -- Note what messages are charged that begin now. `charges`: by message id, {milliseconds, weight, caller}.
  function turns.charge(charges)
    local values, n, begins = {}, 0, string.format('%.3f %.3f ', now, now)
    for id, one in pairs(charges) do
      local charge = begins .. string.format('%.3f %.6g', one[1], one[2])
      values[n + 1], values[n + 2], n = id, string.format('%-64s ', charge) .. one[3], n + 2
    end
    call_with_all('HSET', keys.charges, values)
  end

  -- Charge what tasks used that have ended. `ids`: of their messages; `seconds`: by position, how long they ran.
  function turns.finish(ids, seconds)
    local charges = call_with_all('HMGET', keys.charges, ids)
    load_callers(charges)
    for i, charge in ipairs(charges) do
      local begun, since, charged, weight, caller = read_charge(charge)
      if begun then
        -- A worker has more to do for a task than to run its script, and even one that runs none takes a turn.
        local ran = math.max(math.min(now - begun, (seconds[i] or math.huge) * 1000), 0.1)
        add_use(caller, math.max(math.min(now - since, ran), 0.1) - charged, weight)
        local one = turns.callers[caller]
        one.mean = one.mean and one.mean + 0.2 * (ran - one.mean) or ran
        turns.mean = turns.mean and turns.mean + 0.05 * (ran - turns.mean) or ran
      end
    end
    call_with_all('HDEL', keys.charges, ids)
  end

  -- Forget some callers that would begin anew where they are, once very many are known.
  local function forget()
    if redis.call('HLEN', keys.turns) < 10000 then
      return
    end
    local some, first = redis.call('HRANDFIELD', keys.turns, 20, 'WITHVALUES'), turns.first()
    for i = 1, #some, 2 do
      local virtual = tonumber(string.match(some[i + 1], '^%S+'))
      if string.sub(some[i], 1, 7) == 'caller ' and not (virtual and first and virtual >= first) then
        redis.call('HDEL', keys.turns, some[i])
      end
    end
  end

  -- Write what has changed.
  function turns.write()
    local values, scores = {}, {}
    for caller in pairs(turns.changed) do
      local one = turns.callers[caller]
      local virtual, n = string.format('%.3f', one.virtual), #values
      values[n + 1] = 'caller ' .. caller
      values[n + 2] = virtual .. ' ' .. (one.mean and string.format('%.3f', one.mean) or '-')
      scores[n + 1], scores[n + 2] = virtual, caller
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
    forget()
  end

  return turns
end

-- Choose as `choose` does, whose `plan` gets the tasks. Elements of the queue that do not begin are to be parked.
--
-- `turns`: of `read_turns`. `rules`: functions of `choose`: caller_of, has_room, may_begin, begin, line_length,
-- weight_of.
local function choose_by_turns(queue, plan, count, turns, rules)
  local page, offset, is_last, in_list = math.max(count, 100), 0, false, {}
  local candidates = {} -- {virtual time, caller}, the smallest time last
  local own = {} -- by caller: its elements of the queue, {front = of messages, back = of tasks}, as positions
  local most = 1000 -- elements, and callers, that one fetch considers: the server has others to serve
  local elements = redis.call('LRANGE', queue.messages, 0, most - 1)
  local bodies = #elements > 0 and bodies_of(elements, queue) or {}
  local parked = {} -- by position: what is to be parked, false: it begins
  local highest, since = turns.highest, turns.since
  local first = turns.first()
  plan.charges = {}

  if first then
    turns.settle(acks_of(redis.call('ZRANGE', queue.leases, 0, -1), queue.acks, queue.name))
  end

  local function add(caller)
    local virtual = turns.callers[caller].virtual
    local low, high = 1, #candidates + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      if candidates[middle][1] > virtual then
        low = middle + 1
      else
        high = middle
      end
    end
    table.insert(candidates, low, {virtual, caller})
  end

  -- Add the next callers that have a line.
  local function add_page()
    local names = redis.call('ZRANGE', keys_of_lines(queue.messages).lines, offset, offset + page - 1)
    turns.load(names)
    for i = #names, 1, -1 do -- the largest first: each is added at the end
      local caller = names[i]
      if not in_list[caller] then
        in_list[caller] = true
        turns.callers[caller].virtual = turns.callers[caller].virtual or turns.highest
        add(caller)
      end
    end
    offset, is_last = offset + page, #names < page
  end

  local function read_queue()
    local callers = {}
    for i, element in ipairs(elements) do
      local caller, submission = rules.caller_of(element, bodies[i])
      if caller then
        own[caller] = own[caller] or {front = {}, back = {}}
        table.insert(own[caller][bodies[i] and 'front' or 'back'], i)
        parked[i] = {caller, element, bodies[i], submission or ''}
        callers[#callers + 1] = caller
      elseif #plan.elements < count then
        rules.begin(element, bodies[i]) -- the worker says what is wrong with it
        parked[i] = false
      else
        break
      end
      plan.scanned = i
    end
    turns.load(callers)
    for caller in pairs(own) do
      if not in_list[caller] then
        in_list[caller] = true
        if rules.line_length(caller) == 0 or not turns.callers[caller].virtual then
          turns.join(caller, first)
        end
        add(caller)
      end
    end
  end

  local lines = {} -- by caller: what was read of its line
  -- Return whether there is a next element in a caller's line, the element, and its body.
  local function next_of_line(caller)
    local line, taken = lines[caller], plan.taken[caller] or 0
    if not line or line.at == line.size then -- the last one that was read tells that the line goes on
      local size = line and math.min(line.size * 2, count + 1) or 2
      line = redis.call('LRANGE', line_of(queue.messages, caller), taken, taken + size - 1)
      line.at, line.size, lines[caller] = 1, size, line
    end
    if not line[line.at] then
      return false
    end
    local element, submission, number = split_parked(line[line.at])
    line.at, plan.taken[caller] = line.at + 1, taken + 1
    plan.left[caller] = #line - line.at + 1 -- at least
    local body = number == 0 and bodies_of({element}, queue)[1] or false
    if not body then -- a message knows its submission itself
      plan.submissions[element] = submission
    end
    return true, element, body
  end

  -- Return the same of all that waits of a caller: messages that were held before, its line, what has just come.
  local function next_of(caller)
    local mine = own[caller]
    local position = mine and table.remove(mine.front, 1)
    if not position then
      local found, element, body = next_of_line(caller)
      if found then
        return true, element, body
      end
      position = mine and table.remove(mine.back, 1)
    end
    if not position then
      return false
    end
    local one = parked[position]
    parked[position] = false
    return true, one[2], one[3]
  end

  add_page()
  read_queue()
  local held_up, latest = {}, nil
  while #plan.elements < count and rules.has_room() do
    if #candidates == 0 then
      if is_last or offset >= most then
        break
      end
      add_page()
    else
      local virtual, caller = unpack(table.remove(candidates), 1, 2)
      if not rules.may_begin(caller) then
        held_up[#held_up + 1] = caller
      else
        local found, element, body = next_of(caller)
        if found then
          rules.begin(element, body, caller)
          local weight, use = rules.weight_of(caller), turns.expected(caller)
          plan.charges[element] = {use, weight, caller}
          turns.set(caller, virtual + use / weight)
          add(caller)
          latest = math.max(latest or virtual, virtual)
        end
      end
    end
  end

  for i = plan.scanned, 1, -1 do -- messages first, the last one first: each goes to the head of its line
    if parked[i] and parked[i][3] then
      plan.parked[#plan.parked + 1] = parked[i]
    end
  end
  for i = 1, plan.scanned do
    if parked[i] and not parked[i][3] then
      plan.parked[#plan.parked + 1] = parked[i]
    end
  end
  for _, one in ipairs(plan.parked) do plan.left[one[1]] = rules.line_length(one[1]) + 1 end
  for _, caller in ipairs(held_up) do
    if latest and turns.callers[caller].virtual < latest then
      turns.set(caller, latest) -- a caller at its limit saves no turns up
    end
  end
  if not is_last and #candidates == 0 then -- all of these are at their limits: others are the first the next time
    for _, caller in ipairs(held_up) do turns.set(caller, turns.callers[caller].virtual + 1) end
    plan.wait = 1
  end
  if not first and #plan.parked == 0 then -- no task waits: nobody takes a turn from another
    turns.highest, turns.since, turns.changed = highest, since, {}
    for _, charge in pairs(plan.charges) do charge[1] = 0 end
  end
end
