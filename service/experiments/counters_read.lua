-- What one arm of an experiment has come to.
--
-- KEYS     as in counters_write.lua, without KEYS[2]
-- ARGV     the outcomes' names
-- returns  per outcome 1 if its users are counted one by one, and how many; then all counts
local found = {}
for i, outcome in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1], outcome .. ':full') == 1 then
    table.insert(found, 0)
    table.insert(found, redis.call('PFCOUNT', KEYS[2 * i + 1]))
  else
    table.insert(found, 1)
    table.insert(found, redis.call('SCARD', KEYS[2 * i]))
  end
end
for _, part in ipairs(redis.call('HGETALL', KEYS[1])) do
  table.insert(found, part)
end
return found
