-- Counts of one scene that halve with time: adds to them, and answers with the highest, atomically.
--
-- KEYS[1]  sorted set, item id -> its count, times 2^((now - landmark) / half-life)
-- KEYS[2]  hash of `landmark` (milliseconds since 1970) and `half_life` (milliseconds)
-- KEYS[3]  is there once the delivery has been counted: repeating it changes nothing
-- ARGV     time of the delivery, half-life, members kept, members wanted, time to live of KEYS[3],
--          then per item: id, what to add as of that time
-- returns  JSON: landmark, then id and score of the highest, best first, all of them strings
--
-- One long string instead of 1,000 short ones: the client's reply parser costs more than this script.
local counts, scale, delivered = KEYS[1], KEYS[2], KEYS[3]
local at, half_life, kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function text(number)
  return string.format('%.17g', number)
end

local function live_on()
  for _, key in ipairs({counts, scale}) do
    redis.call('PEXPIRE', key, string.format('%.0f', 60 * half_life))
  end
end

local landmark = tonumber(redis.call('HGET', scale, 'landmark'))
local was = tonumber(redis.call('HGET', scale, 'half_life'))
if not landmark then -- new, or evicted, and then the scores mean nothing
  redis.call('DEL', counts)
elseif was ~= half_life or at - landmark > 500 * half_life then
  -- Doubles end at 2^1023; and with another half-life everybody's score is on another scale.
  local by = 2 ^ ((landmark - at) / was)
  local members = redis.call('ZRANGE', counts, 0, -1, 'WITHSCORES')
  for i = 1, #members, 2 do
    redis.call('ZADD', counts, text(tonumber(members[i + 1]) * by), members[i])
  end
  redis.call('ZREMRANGEBYSCORE', counts, '-inf', text(2 ^ -60))
  landmark = nil
end
if not landmark then
  landmark = at
  redis.call('HSET', scale, 'landmark', text(landmark), 'half_life', text(half_life))
  live_on()
end

if #ARGV > 5 and redis.call('SET', delivered, 1, 'PX', ARGV[5], 'NX') then
  local grown = 2 ^ ((at - landmark) / half_life)
  for i = 6, #ARGV, 2 do
    redis.call('ZINCRBY', counts, text(tonumber(ARGV[i + 1]) * grown), ARGV[i])
  end
  redis.call('ZREMRANGEBYRANK', counts, 0, -(kept + 1))
  live_on()
end

local highest = redis.call('ZREVRANGE', counts, 0, tonumber(ARGV[4]) - 1, 'WITHSCORES')
table.insert(highest, 1, text(landmark))
return cjson.encode(highest)
