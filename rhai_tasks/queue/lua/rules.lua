-- Functions about the rules of a circle: what is paused, and whose tasks are blocked.
--
-- Needs  nothing

-- Read the rules of a circle, by field. Raises an error if the key holds another type: a pause must not end by that.
local function read_rules(key)
  local fields, rules = redis.call('HGETALL', key), {}
  for i = 1, #fields, 2 do rules[fields[i]] = fields[i + 1] end
  return rules
end

-- Return fields and notes of the rules that block a caller or a script, in one list.
local function blocks_of(rules)
  local blocks = {}
  for field, note in pairs(rules) do
    if string.sub(field, 1, 6) == 'block ' then
      blocks[#blocks + 1], blocks[#blocks + 2] = field, note
    end
  end
  return blocks
end
