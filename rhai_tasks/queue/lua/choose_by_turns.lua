-- Functions that choose the tasks that begin where callers take turns.
--
-- Needs  queue/keys, queue/messages, queue/lines

-- Add a candidate to a heap of them, whose first has the smallest time. `one`: {virtual time, caller}.
local function add_candidate(heap, one)
  local place = #heap + 1
  while place > 1 do
    local parent = math.floor(place / 2)
    if heap[parent][1] <= one[1] then
      break
    end
    heap[place], place = heap[parent], parent
  end
  heap[place] = one
end

-- Take the first candidate out of a heap, and return it.
local function remove_first(heap)
  local first, last, size = heap[1], table.remove(heap), #heap
  local place, child = 1, 2
  while child <= size do
    if child < size and heap[child + 1][1] < heap[child][1] then
      child = child + 1
    end
    if last[1] <= heap[child][1] then
      break
    end
    heap[place], place, child = heap[child], child, 2 * child
  end
  if size > 0 then
    heap[place] = last
  end
  return first
end

-- Choose as `choose` does, whose `plan` gets the tasks. Elements of the queue that do not begin are to be parked.
--
-- `turns`: of `read_turns`. `rules`: functions of `choose`: caller_of, has_room, may_begin, begin, line_length,
-- load_buckets, weight_of.
local function choose_by_turns(queue, plan, count, turns, rules)
  local page, offset, is_last, in_list = 50, 0, false, {}
  local horizon -- virtual time: all callers that have a line and a smaller one are candidates
  local candidates = {} -- {virtual time, caller}: a heap
  local own = {} -- by caller: its elements of the queue, {front = of messages, back = of tasks}, as positions
  -- A turn of quick tasks is several: each other caller begins the later by so little, and the server has less to do.
  local milliseconds_of_turn = 1
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
    add_candidate(candidates, {turns.callers[caller].virtual, caller})
  end

  -- Add the next callers that have a line.
  local function add_page()
    local found = redis.call('ZRANGE', keys_of_lines(queue.messages).lines, offset, offset + page - 1, 'WITHSCORES')
    local names = {}
    for i = 1, #found, 2 do names[#names + 1] = found[i] end
    horizon = tonumber(found[#found]) or horizon
    turns.load(names)
    rules.load_buckets(names)
    for _, caller in ipairs(names) do
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
      local wanted = line and line.size * 2 or math.ceil(milliseconds_of_turn / turns.expected(caller)) + 1
      local size = math.max(math.min(wanted, count + 1), 2)
      line = redis.call('LRANGE', line_of(queue.messages, caller), taken, taken + size - 1)
      line.at, line.size, lines[caller] = 1, size, line
    end
    if not line[line.at] then
      return false
    end
    local element, submission, number = split_parked(line[line.at])
    line.at, plan.taken[caller] = line.at + 1, taken + 1
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

  local held_up, latest = {}, nil
  -- Let a caller that is a candidate no more have its turn.
  local function take_turn(virtual, caller)
    local weight, use, used = rules.weight_of(caller), turns.expected(caller), 0
    local charge = {use, weight, caller} -- of each of its tasks
    local may_begin, found
    repeat
      local element, body
      may_begin, found = rules.may_begin(caller), false
      if may_begin then
        found, element, body = next_of(caller)
      end
      if found then
        rules.begin(element, body, caller)
        plan.charges[element], used = charge, used + use
      end
    until not found or used >= milliseconds_of_turn or #plan.elements >= count or not rules.has_room()
    local line = lines[caller]
    if line then
      plan.left[caller] = #line - line.at + 1 -- at least
    end
    if used > 0 then
      latest = math.max(latest or virtual, virtual)
      turns.set(caller, virtual + used / weight)
    end
    if not may_begin then
      held_up[#held_up + 1] = caller
    elseif found then
      add(caller)
    elseif not plan.taken[caller] and not own[caller] then -- somebody has deleted its line
      plan.taken[caller], plan.left[caller] = 0, 0
    end
  end

  add_page()
  read_queue()
  while #plan.elements < count and rules.has_room() do
    local is_next = candidates[1] and (is_last or candidates[1][1] <= horizon)
    if not is_next and not is_last and offset < most then
      add_page()
    elseif candidates[1] then
      take_turn(unpack(remove_first(candidates), 1, 2))
    else
      break
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
