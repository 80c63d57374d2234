-- Changes to a catalogue behind a version, in their order.
--
-- KEYS[1]  KEYS[2]  KEYS[3]  those of changes_write.lua
-- ARGV     the version, and how many changes at most
-- returns  the version now, then per item: id, number, JSON, SID or nil
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local answer = { last[2] or '0' }
local found = redis.call(
  'ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #found, 2 do
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = found[i + 1]
  answer[#answer + 1] = redis.call('HGET', KEYS[1], found[i])
  answer[#answer + 1] = redis.call('HGET', KEYS[3], found[i])
end
return answer
