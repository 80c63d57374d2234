-- Adds what one user was shown, and forgets what is old.
--
-- KEYS[1]  sorted set, '["request id",[["experiment's key","arm"],…]]' -> milliseconds since 1970
-- ARGV     older ones go (ms), how many stay, time to live (ms), then per answer: ms, member
redis.call('ZADD', KEYS[1], unpack(ARGV, 4))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(tonumber(ARGV[2]) + 1))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.status_reply('OK')
