-- Take messages off their queue for RabbitMQ; until a worker has claimed them, they count as published.
--
-- Needs  connection/common, queue/messages
-- KEYS  1 messages (list)   2 bodies (hash)   3 sequence (string)   4 published (sorted set)   5 deliveries (hash)
--       6 leases (sorted set)
-- ARGV  1 how many   2 start of a message, up to its time   3 start of the names of acks, up to a broker id
--       4 queue name   5 prefix of details keys
-- Returns their ids.
-- A server without memory refuses this first write: nothing is half done then.
redis.call('ZADD', KEYS[4], 'XX', 0, '')
local time = redis.call('TIME')
local elements = redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)
if #elements == 0 then
  return {}
end
redis.call('LTRIM', KEYS[1], 0, -1) -- removes nothing, and proves that the elements can be removed
local bodies = bodies_of(elements, {
  messages = KEYS[1],
  bodies = KEYS[2],
  published = KEYS[4],
  leases = KEYS[6],
  acks = ARGV[3],
  name = ARGV[4],
})
local number, ids, made, deaths, head = nil, {}, {}, {}, dated(ARGV[2], time)
local some_died = redis.call('EXISTS', KEYS[5]) == 1
for i, element in ipairs(elements) do
  ids[i] = element
  if not bodies[i] then
    number = (number or last_message_number(KEYS[3], time)) + 1
    ids[i] = message_id(number)
    made[#made + 1] = ids[i]
    made[#made + 1] = message_of(ids[i], element, read('HGET', ARGV[5] .. element, FIELD.submission) or nil, head)
    deaths[i] = some_died and redis.call('HGET', KEYS[5], ':' .. element)
  end
end
if number then
  redis.call('SET', KEYS[3], string.format('%.0f', number))
  call_with_all('HSET', KEYS[2], made)
end
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[4], milliseconds(time), id) -- the first of these calls has proved that it may be done
end
redis.call('LTRIM', KEYS[1], #elements, -1)
for i, count in pairs(deaths) do
  if count then
    move_deaths(KEYS[5], elements[i], ids[i], count)
  end
end
return ids
