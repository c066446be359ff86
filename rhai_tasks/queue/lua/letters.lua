-- A function about dead letters.
--
-- Needs  nothing

-- Write a dead letter. It counts as one from its last write on.
--
-- `call`: `redis.call`; or `redis.pcall`, which tries all three writes even if one fails. `keys`: dead, dead_bodies,
-- dead_reasons. `now`: the server's millisecond. Returns the three replies.
local function add_dead_letter(call, keys, id, body, reason, now)
  return call('HSET', keys.dead_bodies, id, body), call('HSET', keys.dead_reasons, id, reason),
    call('ZADD', keys.dead, now, id)
end
