-- Give the messages that no worker holds back to the end of the native list that they were taken from, in that order.
--
-- Needs  connection/common, queue/messages, queue/lines
-- KEYS  1 native list   2 messages (list)   3 bodies (hash)   4 deliveries (hash)   5 full (string)
--       6 published (sorted set)   7 leases (sorted set)   8 on: acks of brokers that are gone (sets)
-- ARGV  1 name of the actor that runs tasks   2 prefix of details keys   3 time for `updatedAt`
--       4 start of the names of acks, up to a broker id   5 queue name   6 "oldest": the end is the tail, else the head
--       7 not empty: `give_back_ids.lua` has given back the ids
-- Returns how many tasks went back; -1: that script is to be called first, since there are many ids. Messages that say
-- more than a task's id could not come back as they were, and stay:
-- those of other actors, and of groups and pipelines.

-- Return the id of the task that a message is for, if the message says no more than that, and the submission it is for.
local function plain_task(body)
  local task, _, submission, message = task_of(body, ARGV[1])
  if not task or #message.args ~= 1 or next(message.kwargs) ~= nil then
    return nil
  end
  for name in pairs(message.options) do
    if name ~= 'redis_message_id' and name ~= 'submission' then
      return nil
    end
  end
  return task, submission
end

-- 1. Read.
local tasks = {} -- messages that go back: {id, task, status, stale, deaths}
local ids, others = {}, {} -- ids of tasks that are not messages; ids of messages that stay

local function sort_message(id, body)
  local task, submission = plain_task(body)
  if task then
    local known = read('HMGET', ARGV[2] .. task, FIELD.status, FIELD.submission) or {}
    local stale = known[2] and known[2] ~= submission -- the task has been submitted anew, and waits elsewhere
    tasks[#tasks + 1] = {id = id, task = task, status = known[1], stale = stale,
      deaths = tonumber(redis.call('HGET', KEYS[4], id) or 0) or 0}
  else
    others[#others + 1] = id
  end
end

local is_large = redis.call('LLEN', KEYS[2]) > 1000 or redis.call('EXISTS', keys_of_lines(KEYS[2]).lines) == 1
if ARGV[7] == '' and is_large then
  return -1
end
local elements = redis.call('LRANGE', KEYS[2], 0, -1)
local queue = {
  messages = KEYS[2],
  bodies = KEYS[3],
  published = KEYS[6],
  leases = KEYS[7],
  acks = ARGV[4],
  name = ARGV[5],
  gone = {unpack(KEYS, 8)},
}
local function sort_id(id) ids[#ids + 1] = id end
sort_elements(elements, queue, sort_message, sort_id)
for _, id in ipairs(redis.call('ZRANGE', KEYS[6], 0, -1)) do
  local body = redis.call('HGET', KEYS[3], id)
  if body then
    sort_message(id, body)
  end
end
for i = 8, #KEYS do
  for _, id in ipairs(redis.call('SMEMBERS', KEYS[i])) do
    sort_message(id, redis.call('HGET', KEYS[3], id) or '')
  end
end
table.sort(tasks, function(a, b) return a.id < b.id end)

-- 2. Prove that the rest can be done. A server without memory refuses neither this first write nor those after it.
redis.call('DEL', KEYS[5])
redis.call('HDEL', KEYS[3], '')
redis.call('HDEL', KEYS[4], '')
redis.call('LTRIM', KEYS[1], 0, -1)
redis.call('LTRIM', KEYS[2], 0, -1)

-- 3. Add.
for _, task in ipairs(tasks) do
  if task.deaths > 0 and not task.stale then
    redis.call('HSET', KEYS[4], ':' .. task.task, task.deaths) -- counted on when it becomes a message again
  end
end
local pushed, oldest = 0, ARGV[6] == 'oldest'
local function push(id)
  redis.call(oldest and 'RPUSH' or 'LPUSH', KEYS[1], id)
  pushed = pushed + 1
end
for i = #ids, 1, -1 do push(ids[i]) end
for i = #tasks, 1, -1 do
  if not tasks[i].stale then push(tasks[i].task) end
end
if #others > 0 then
  local reply = redis.pcall('RPUSH', KEYS[2], others[1])
  if is_error(reply) then
    redis.call('LTRIM', KEYS[1], oldest and 0 or pushed, oldest and -1 - pushed or -1) -- undoes what was added
    return redis.error_reply(reply.err)
  end
  for i = 2, #others do redis.call('RPUSH', KEYS[2], others[i]) end
end

-- 4. Remove.
redis.call('LTRIM', KEYS[2], #elements, -1)
redis.call('DEL', KEYS[6])
for i = 8, #KEYS do redis.call('DEL', KEYS[i]) end
for _, task in ipairs(tasks) do
  redis.call('HDEL', KEYS[3], task.id)
  redis.call('HDEL', KEYS[4], task.id)
  if task.status == STATUS.processing and not task.stale then -- its worker died, or was made to stop
    redis.pcall('HSET', ARGV[2] .. task.task, FIELD.status, STATUS.pending, FIELD.updatedAt, ARGV[3])
  end
end
return pushed
