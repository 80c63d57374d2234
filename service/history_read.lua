-- One user's events as one JSON array, in no particular order, and the profile (nil for none).
--
-- KEYS[1]  the hash that history_append.lua keeps
-- KEYS[2]  the profile, JSON
--
-- One long string instead of 200 short ones: the client's reply parser costs more than this script.
return {'[' .. table.concat(redis.call('HVALS', KEYS[1]), ',') .. ']', redis.call('GET', KEYS[2])}
