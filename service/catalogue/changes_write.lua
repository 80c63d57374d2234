-- Writes changes to a catalogue, all of them or none.
--
-- KEYS[1]  hash, item id -> JSON of what was decided of it last
-- KEYS[2]  sorted set of the same ids by the number of that change; the highest is the version
-- KEYS[3]  hash, item id -> SID in the words of one bundle
-- ARGV     the version that the writer has seen; a JSON list: id, JSON and SID ('' leaves it) of each
--          item in turn
-- returns  the version after, or -1 where others have written since: read, and try again
--
-- One long string instead of many short ones, as in changes_read.lua: a client packs each by itself.
-- An item has one entry however often it changes, so nothing grows but with the items.
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local number = tonumber(last[2] or 0)
if number ~= tonumber(ARGV[1]) then
  return -1
end
local changes = cjson.decode(ARGV[2])
for i = 1, #changes, 3 do
  local item, document, sid = changes[i], changes[i + 1], changes[i + 2]
  number = number + 1
  redis.call('HSET', KEYS[1], item, document)
  redis.call('ZADD', KEYS[2], string.format('%.0f', number), item)
  if sid ~= '' then
    redis.call('HSET', KEYS[3], item, sid)
  end
end
return number
