-- Read the states of tasks.
--
-- Needs  connection/common
-- ARGV  1 prefix of details keys   2 "1": bring outputs and errors too   3 on: task ids
-- Returns for each task: {status}; behind a final one, if asked for, the output or the error, and the error's kind if
-- it has one; nil if there are no details. After 4 MiB of texts the rest is reported as pending: the server has others
-- to serve.
local answers = {}
local size = 0
for i = 3, #ARGV do
  local key = ARGV[1] .. ARGV[i]
  local status = redis.pcall('HGET', key, FIELD.status)
  if is_error(status) then
    if not is_wrong_type(status) then
      redis.call('HGET', key, FIELD.status) -- raises the error as the server words it
    end
    answers[#answers + 1] = {STATUS.error, 'Task details are not a hash: ' .. status.err}
  elseif not status and redis.call('EXISTS', key) == 0 then
    answers[#answers + 1] = false
  elseif ARGV[2] ~= '1' or status ~= STATUS.completed and status ~= STATUS.error then
    answers[#answers + 1] = {status or STATUS.pending}
  elseif size > 4 * 1024 * 1024 then
    answers[#answers + 1] = {STATUS.pending}
  else
    local text, kind
    if status == STATUS.completed then
      text, kind = redis.call('HGET', key, FIELD.output) or '', false
    else
      text, kind = unpack(redis.call('HMGET', key, FIELD.error, FIELD.errorKind))
      text = text or ''
    end
    size = size + #text
    answers[#answers + 1] = {status, text, kind}
  end
end
return answers
