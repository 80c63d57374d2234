-- Writes changes to a catalogue, all of them or none.
--
-- KEYS[1]  hash, item id -> JSON of what was decided of it last
-- KEYS[2]  sorted set of the same ids by the number of that change; the highest is the version
-- KEYS[3]  hash, item id -> SID in the words of one bundle
-- ARGV     the version that the writer has seen, then per item: id, JSON, SID ('' leaves it)
-- returns  the version after, or -1 where others have written since: read, and try again
--
-- An item has one entry however often it changes, so nothing grows but with the items.
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local number = tonumber(last[2] or 0)
if number ~= tonumber(ARGV[1]) then
  return -1
end
for i = 2, #ARGV, 3 do
  number = number + 1
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[2], string.format('%.0f', number), ARGV[i])
  if ARGV[i + 2] ~= '' then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 2])
  end
end
return number
