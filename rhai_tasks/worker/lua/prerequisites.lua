-- Say whether the prerequisites of a task have completed.
--
-- Needs  connection/common
-- ARGV  1 prefix of details keys   2 task id   3 how many tasks are searched for a cycle, at most
--       4 on: ids of the prerequisites
-- Returns {"ready"}; {"failed", id} or {"missing", id} of the first one that ended as an error or has no details;
-- {"cycle", ids from the task to itself...}; {"waits"}.
local waiting = {}
for i = 4, #ARGV do
  local details = ARGV[1] .. ARGV[i]
  local status = read('HGET', details, FIELD.status)
  if status == STATUS.error then
    return {'failed', ARGV[i]}
  elseif not status and (status == nil or redis.call('EXISTS', details) == 0) then
    return {'missing', ARGV[i]}
  elseif status ~= STATUS.completed then
    waiting[#waiting + 1] = ARGV[i]
  end
end
if #waiting == 0 then
  return {'ready'}
end

-- Search for the task among those that the waiting ones wait for, breadth first. `after`: by id, the task whose
-- prerequisite it is.
local after, place = {}, 1
for _, id in ipairs(waiting) do after[id] = ARGV[2] end

local function path_to(id)
  local path = {ARGV[2]}
  while id ~= ARGV[2] do
    path[#path + 1], id = id, after[id]
  end
  path[#path + 1] = ARGV[2]
  path[#path + 1] = 'cycle'
  return reversed(path)
end

while waiting[place] and place <= tonumber(ARGV[3]) do
  local id = waiting[place]
  if id == ARGV[2] then
    return {'cycle', id, id}
  end
  local text = read('HGET', ARGV[1] .. id, FIELD.prerequisites) or ''
  local readable, ids = pcall(cjson.decode, text)
  for _, further in ipairs(readable and type(ids) == 'table' and ids or {}) do
    if further == ARGV[2] then
      return path_to(id)
    elseif type(further) == 'string' and not after[further] then
      after[further] = id
      waiting[#waiting + 1] = further
    end
  end
  place = place + 1
end
return {'waits'}
