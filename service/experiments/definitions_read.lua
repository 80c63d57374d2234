-- All definitions, if there is another version of them than the caller knows.
--
-- KEYS[1]  hash, name -> JSON
-- KEYS[2]  the version, which grows with each change
-- ARGV[1]  the version that is known
-- returns  the version, then every JSON; the version alone where it is the one that is known
local version = redis.call('GET', KEYS[2]) or '0'
if version == ARGV[1] then
  return {version}
end
local found = redis.call('HVALS', KEYS[1])
table.insert(found, 1, version)
return found
