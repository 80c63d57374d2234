-- Adds users and answers to one arm of an experiment, atomically.
--
-- KEYS[1]  hash of counts: answers, fallbacks, empty, milliseconds by bucket; and for each outcome
--          whose users were too many to be kept one by one, `OUTCOME:full`
-- KEYS[2]  is there once this delivery's counts were added: repeating it changes nothing
-- KEYS[3…] per outcome a set of users, and a HyperLogLog of the same
-- ARGV     users kept per set, time to live of all, of KEYS[2] (ms); per outcome its name, how many
--          users, and these; then names of counts and what to add
local counts, delivered = KEYS[1], KEYS[2]
local bound, ttl = tonumber(ARGV[1]), ARGV[2]
local at = 4

for key = 3, #KEYS, 2 do
  local users, sketch = KEYS[key], KEYS[key + 1]
  local full = ARGV[at] .. ':full'
  local last = at + 1 + tonumber(ARGV[at + 1])
  for first = at + 2, last, 1000 do -- Lua's stack ends at 8,000
    local upto = math.min(first + 999, last)
    redis.call('PFADD', sketch, unpack(ARGV, first, upto))
    if redis.call('HEXISTS', counts, full) == 0 then
      redis.call('SADD', users, unpack(ARGV, first, upto))
    end
  end
  if redis.call('SCARD', users) > bound then
    redis.call('UNLINK', users)
    redis.call('HSET', counts, full, 1)
  end
  at = last + 1
end

if at < #ARGV and redis.call('SET', delivered, 1, 'PX', ARGV[3], 'NX') then
  for i = at, #ARGV, 2 do
    redis.call('HINCRBY', counts, ARGV[i], ARGV[i + 1])
  end
end
for i, key in ipairs(KEYS) do
  if i ~= 2 then
    redis.call('PEXPIRE', key, ttl)
  end
end
return redis.status_reply('OK')
