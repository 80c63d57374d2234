-- Changes one definition, if nobody else has changed any since the caller read them.
--
-- KEYS[1]  hash, name -> JSON
-- KEYS[2]  the version, which grows with each change
-- ARGV     the version that is known, the name, its JSON ('' removes it)
-- returns  the version after, or -1 where it is another one
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[1] then
  return -1
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
return redis.call('INCR', KEYS[2])
