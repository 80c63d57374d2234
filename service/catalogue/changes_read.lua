-- Changes to a catalogue behind a version, in their order.
--
-- KEYS[1]  KEYS[2]  KEYS[3]  those of changes_write.lua
-- ARGV     the version, and how many changes at most
-- returns  the version now, and where there are any a JSON list: id, number, JSON and SID, or false,
--          of each item in turn
--
-- One long string instead of 4,000 short ones: the client's reply parser costs more than this script.
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local found = redis.call(
  'ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local changes = {}
for i = 1, #found, 2 do
  changes[#changes + 1] = found[i]
  changes[#changes + 1] = found[i + 1]
  changes[#changes + 1] = redis.call('HGET', KEYS[1], found[i])
  changes[#changes + 1] = redis.call('HGET', KEYS[3], found[i])
end
return { last[2] or '0', #changes > 0 and cjson.encode(changes) }
