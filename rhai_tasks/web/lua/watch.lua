-- Read the tasks that are taken next, and the states of tasks that were taken.
--
-- Needs  nothing
-- KEYS  native lists
-- ARGV  1 prefix of details keys   2 on: ids of tasks
-- Returns {{id, status, updatedAt} of the task at the head of each list that has one, after its position from 0;
-- {status, updatedAt} of each of the tasks}; values are empty where absent.
local function state(id)
  local known = redis.pcall('HMGET', ARGV[1] .. id, FIELD.status, FIELD.updatedAt)
  return known.err and {'', ''} or {known[1] or '', known[2] or ''}
end

local heads, states = {}, {}
for i, list in ipairs(KEYS) do
  local id = redis.pcall('LINDEX', list, 0)
  if type(id) == 'string' then
    local known = state(id)
    heads[#heads + 1] = {i - 1, id, known[1], known[2]}
  end
end
for i = 2, #ARGV do
  states[#states + 1] = state(ARGV[i])
end
return {heads, states}
