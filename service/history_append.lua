-- Adds events to one user's history and trims it, atomically.
--
-- KEYS[1]  hash, event id -> '[microseconds,"event id","item id","type"]'
-- KEYS[2]  sorted set of the same event ids by microseconds; equal ones go by the bytes of the id
-- KEYS[3]  the user's profile, which lives as long
-- ARGV     limit, time to live in milliseconds ('' for none), microseconds before which events are too
--          old ('' for none), then per event: id, microseconds, JSON
-- returns  which of the events, from 0, were not there before and are there now
--
-- Microseconds stay strings throughout: Lua would print them with 14 digits.
local events, order = KEYS[1], KEYS[2]
local limit, ttl, since = tonumber(ARGV[1]), ARGV[2], ARGV[3]

-- Eviction, or an expiry between two calls, can take one key of the pair. The hash is the truth.
if redis.call('HLEN', events) ~= redis.call('ZCARD', order) then
  redis.call('DEL', order)
  local kept = redis.call('HGETALL', events)
  for i = 1, #kept, 2 do
    redis.call('ZADD', order, string.match(kept[i + 1], '^%[(%-?%d+)'), kept[i])
  end
end

local added = {}
for i = 4, #ARGV, 3 do
  local id, microseconds, json = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HSETNX', events, id, json) == 1 then
    redis.call('ZADD', order, microseconds, id)
    added[id] = (i - 4) / 3
  end
end

if since ~= '' then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', '(' .. since)) do
    redis.call('HDEL', events, id)
    added[id] = nil
  end
  redis.call('ZREMRANGEBYSCORE', order, '-inf', '(' .. since)
end

local excess = redis.call('ZCARD', order) - limit
if excess > 0 then
  for _, id in ipairs(redis.call('ZRANGE', order, 0, excess - 1)) do
    redis.call('HDEL', events, id)
    added[id] = nil
  end
  redis.call('ZREMRANGEBYRANK', order, 0, excess - 1)
end

for _, key in ipairs(KEYS) do
  if ttl == '' then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, ttl)
  end
end

local new = {}
for _, position in pairs(added) do
  new[#new + 1] = position
end
return new
