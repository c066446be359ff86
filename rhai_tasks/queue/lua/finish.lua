-- Record final outcomes, reply, and acknowledge: one step for each task, and only while the broker holds its message.
-- A task that was cancelled in the meantime ends as cancelled, whatever its script's outcome. A task whose outcome the
-- server refuses holds up no other.
--
-- Needs  connection/common, queue/changes, queue/cancellation, queue/letters, queue/follow_ups, queue/turns
-- KEYS  1 acks (set)   2 bodies (hash)   3 deliveries (hash)   4 dead (sorted set)   5 dead bodies (hash)
--       6 reasons (hash)   7 changes (string)
--       8 on: acceptances of the signed ones among the tasks (strings, see `accept.lua`)
-- ARGV  1 "1": delete the details after the reply   2 milliseconds after which a reply list expires, 0: never
--       3 seconds after which the details expire, unless they say so themselves, 0: never
--       4 start of the names of channels for states   5 namespace   6 prefix of details keys
--       7 number of changes when the simple tasks were fetched, see `hold`
--       8 for each task how many seconds its script ran, separated by blanks; may be empty
--       9 how many groups of simple tasks follow, completed and with nothing else to write: for each a time for
--       `updatedAt`, how many tasks follow, and for each of these message id, task id, submission as it was fetched or
--       nothing, output
--       then for each other task: message id, details key, submission or nothing, status, its text, time for
--       `updatedAt`, kind of the error or nothing, how many more arguments follow: none, or how many follow-ups there
--       are, six arguments for each of them (follow_ups.py), how many names and values of answers follow (-1: the task
--       has no terms), these names and values (answers.py), reply JSON, reply lists...
-- Returns {positions from 0 and results of the simple tasks that are not "recorded"; the results of the others}:
-- "recorded"; "recorded: " and why a follow-up could not be done; "lost": this broker does not hold the message any
-- more, nothing was written; "superseded": the task has been submitted again, nothing was written; {the server's error
-- text}: the details key is not a hash, the message is a dead letter; or the server's error: the task is held as
-- before, and the call can be repeated.
local ids, held = {}, {}
local i, n = 10, 0
for _ = 1, ARGV[9] do
  local last = i + 1 + 4 * ARGV[i + 1]
  for place = i + 2, last, 4 do
    n = n + 1
    ids[n] = ARGV[place]
  end
  i = last + 1
end
local others = i
while i <= #ARGV do
  n = n + 1
  ids[n] = ARGV[i]
  i = i + 8 + ARGV[i + 7]
end
for place, is_held in ipairs(call_with_all('SMISMEMBER', KEYS[1], ids)) do
  held[ids[place]] = is_held == 1
end
-- These remove nothing, and prove that the messages can be acknowledged. A server without memory refuses neither them
-- nor the writes after them.
redis.call('HDEL', KEYS[2], '')
redis.call('SREM', KEYS[1], '')
local now = #KEYS > 7 and milliseconds(redis.call('TIME'))
local messages = string.sub(KEYS[2], 1, -6) -- the key of the bodies without its last part, `.msgs`
-- One command for both, which hardly ever exist.
local there = redis.call('EXISTS', KEYS[3], keys_of_turns(messages).charges)
local some_died = there > 0 and redis.call('EXISTS', KEYS[3]) == 1
if some_died then
  redis.call('HDEL', KEYS[3], '')
end

local require_follow_ups, follow -- are made when a task has follow-ups

-- Push the reply. `first`, `last`: positions in ARGV of the names of the reply lists.
local function push_replies(json, changed, text, first, last)
  if changed and first <= last then
    local reply = cjson.decode(json)
    reply[FIELD.status], reply[FIELD.error] = STATUS.error, text -- nothing but a cancel changes an outcome
    reply[FIELD.output], reply[FIELD.result] = cjson.null, nil
    json = cjson.encode(reply)
  end
  for place = first, last do
    if type(redis.pcall('LPUSH', ARGV[place], json)) == 'number' and ARGV[2] ~= '0' then
      redis.pcall('PEXPIRE', ARGV[place], ARGV[2])
    end
  end
end

-- Write the answers to a task's terms, in the place of those of an earlier run. `first`, `last`: positions in ARGV of
-- their names and values; `changed`: the outcome that they are of is not the task's.
local function write_answers(details, first, last, changed)
  redis.call('HDEL', details, FIELD.result, FIELD.startedAt, FIELD.runSeconds, FIELD.operations, FIELD.peakMemory,
    FIELD.deliveries, FIELD.workerId)
  if first <= last then
    call_with_all('HSET', details, ARGV, first, last)
    if changed then
      redis.call('HDEL', details, FIELD.result)
    end
  end
end

-- Record the outcome of one task. `rest`: position in ARGV of its further arguments; `more`: how many there are.
local function finish(id, details, submission, status, text, at, kind, rest, more)
  local known = redis.pcall('HMGET', details, FIELD.status, FIELD.error, FIELD.expireFinished, FIELD.submission)
  if known.err then
    if not is_wrong_type(known) then
      redis.call('HMGET', details, FIELD.status) -- raises the error as the server words it
    end
    local dead = {dead = KEYS[4], dead_bodies = KEYS[5], dead_reasons = KEYS[6]}
    local body, reason = redis.call('HGET', KEYS[2], id) or '', 'its details are not a hash: ' .. known.err
    add_dead_letter(redis.call, dead, id, body, reason, milliseconds(redis.call('TIME')))
    return {known.err}
  elseif (known[4] or '') ~= submission then
    return 'superseded'
  end
  local changed, outcome, count = false, status, 0
  if is_cancelled(known[1], known[2]) then
    status, text, kind, changed, outcome = WORD.error, WORD.cancelled, '', true, WORD.cancelled
  end
  if more > 0 then
    count = tonumber(ARGV[rest])
    if count > 0 then
      if not follow then
        require_follow_ups, follow = follow_ups(ARGV[5], KEYS[1], KEYS[4])
      end
      require_follow_ups(rest + 1, count)
    end
  end
  -- An error up to here, or of the first write, leaves the task as it was. After that there is none.
  if status == WORD.completed then
    redis.call('HSET', details, FIELD.status, STATUS.completed, FIELD.output, text, FIELD.updatedAt, at)
    if known[2] then
      redis.call('HDEL', details, FIELD.error, FIELD.errorKind) -- of an earlier run
    end
  elseif kind == '' then
    redis.call('HSET', details, FIELD.status, STATUS.error, FIELD.error, text, FIELD.updatedAt, at)
    redis.call('HDEL', details, FIELD.output, FIELD.errorKind)
  else
    redis.call('HSET', details, FIELD.status, STATUS.error, FIELD.error, text, FIELD.errorKind, kind,
      FIELD.updatedAt, at)
    redis.call('HDEL', details, FIELD.output)
  end
  if more > 0 then
    local answers = rest + 1 + 6 * count
    local json = answers + 1 + math.max(ARGV[answers], 0)
    if ARGV[answers] ~= '-1' then
      write_answers(details, answers + 1, json - 1, changed)
    end
    push_replies(ARGV[json], changed, text, json + 1, rest + more - 1)
  end
  local expiry = tonumber(known[3] or '') or tonumber(ARGV[3])
  if ARGV[1] == '1' then -- but a client of ours may not have read the result yet
    expiry = tonumber(known[3] or redis.pcall('HGET', details, FIELD.keepFinished) or '')
  end
  if not expiry then
    redis.pcall('DEL', details)
  elseif expiry > 0 then
    redis.pcall('PEXPIRE', details, math.ceil(expiry * 1000)) -- a client may have asked for any number
  end
  local word = kind == '' and status or status .. '/' .. kind
  redis.pcall('PUBLISH', ARGV[4] .. details, #text <= 4096 and word .. ' ' .. text or status)
  local failure = count > 0 and follow(outcome, rest + 1, count)
  return failure and 'recorded: ' .. failure or 'recorded'
end

local gone, seconds, count = {}, {}, 0 -- ids of the messages whose tasks have ended, and how long their scripts ran
local next_second = ARGV[8] ~= '' and string.gmatch(ARGV[8], '%S+')
local function ran()
  return next_second and tonumber(next_second() or '')
end

-- Record the outcome of a task whose message is held and whose script ran for some time, and return the result.
local function record(one_ran, id, ...)
  held[id] = false
  local succeeded, result = pcall(finish, id, ...)
  if succeeded then
    count = count + 1
    gone[count], seconds[count] = id, one_ran
    return result
  end
  return {err = error_text(result)}
end

-- Publish the ends of tasks; nothing where nobody listens. `channels`, `texts`: of each task.
local function tell(channels, texts)
  local asked, listeners = false, nil
  if #channels > 1 and redis.pcall('PUBSUB', 'NUMPAT') == 0 then
    asked, listeners = pcall(call_with_all, 'PUBSUB', 'NUMSUB', channels)
  end
  for place, channel in ipairs(channels) do
    if not asked or listeners[2 * place] > 0 then
      redis.pcall('PUBLISH', channel, #texts[place] <= 4096 and WORD.completed .. ' ' .. texts[place] or WORD.completed)
    end
  end
end

-- Nothing has changed since these tasks were fetched, so nothing needs to be read again.
local unchanged = changes_so_far(KEYS[7]) == ARGV[7]
local expiry = tonumber(ARGV[3]) > 0 and math.ceil(ARGV[3] * 1000)
local deviations, channels, texts, told = {}, {}, {}, 0
i, n = 10, -1
for _ = 1, ARGV[9] do
  local at, last = ARGV[i], i + 1 + 4 * ARGV[i + 1]
  for place = i + 2, last, 4 do
    local id, submission, text = ARGV[place], ARGV[place + 2], ARGV[place + 3]
    local details, one_ran, result = ARGV[6] .. ARGV[place + 1], next_second and ran(), nil
    n = n + 1
    if not held[id] then
      result = 'lost'
    else
      local added = unchanged and redis.pcall('HSET', details, FIELD.status, STATUS.completed, FIELD.output, text,
        FIELD.updatedAt, at)
      if type(added) ~= 'number' then
        result = record(one_ran, id, details, submission, WORD.completed, text, at, '', 0, 0)
      else
        held[id] = false
        count = count + 1
        gone[count], seconds[count] = id, one_ran
        if added == 3 and submission ~= '' then -- somebody has deleted the details of this submission
          redis.pcall('DEL', details)
          result = 'superseded'
        else
          if expiry then
            redis.pcall('PEXPIRE', details, expiry)
          end
          told = told + 1
          channels[told], texts[told] = ARGV[4] .. details, text
        end
      end
    end
    if result and result ~= 'recorded' then
      deviations[#deviations + 1] = n
      deviations[#deviations + 1] = result
    end
  end
  i = last + 1
end
tell(channels, texts)

local results = {}
i, n = others, 0
while i <= #ARGV do
  local id, details, submission, status, text, at, kind, more = unpack(ARGV, i, i + 7)
  n = n + 1
  local one_ran = ran()
  if held[id] then
    results[n] = record(one_ran, id, details, submission, status, text, at, kind, i + 8, tonumber(more))
  else
    results[n] = 'lost'
  end
  i = i + 8 + more
end
if now then
  local ended = {}
  for _, id in ipairs(gone) do ended[id] = true end
  for k = 8, #KEYS do
    local stored = redis.pcall('GET', KEYS[k])
    local valid, id = string.match(type(stored) == 'string' and stored or '', '^(%d+) 0 (.*)$')
    if id and ended[id] then
      redis.pcall('SET', KEYS[k], valid .. ' 1 ' .. id, 'PX', string.format('%.0f', math.max(valid - now, 1)))
    end
  end
end
if some_died then
  call_with_all('HDEL', KEYS[3], gone)
end
call_with_all('HDEL', KEYS[2], gone)
call_with_all('SREM', KEYS[1], gone)
if there > (some_died and 1 or 0) then
  -- Functions that only this block uses are made here.
  pcall(function() -- turns that are not written harm no task
    local turns = read_turns(messages, redis.call('TIME'))
    if turns then
      turns.finish(gone, seconds)
      turns.write()
    end
  end)
end
return {deviations, results}
