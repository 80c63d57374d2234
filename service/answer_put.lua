-- Keeps an answer that follows from what is stored of a user, where it can be found by that user.
--
-- KEYS[1]   the answer
-- KEYS[2]   sorted set of the keys of the user's answers, by the millisecond of their expiry
-- KEYS[3..] what the answer follows from, of which some is there unless the user was forgotten
-- ARGV      the answer, time to live in milliseconds
-- returns   whether it was kept
local there = 0
for i = 3, #KEYS do
  there = there + redis.call('EXISTS', KEYS[i])
end
-- Forgotten while the answer was made: it must not outlive its user.
if there == 0 then
  return 0
end
local time, ttl = redis.call('TIME'), tonumber(ARGV[2])
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ttl, KEYS[1])
-- Another process may keep answers for longer.
redis.call('PEXPIRE', KEYS[2], math.max(ttl, redis.call('PTTL', KEYS[2])))
return 1
