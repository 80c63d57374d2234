-- One user's events as one JSON array, in no particular order.
--
-- KEYS[1]  the hash that history_append.lua keeps
--
-- One long string instead of 200 short ones: the client's reply parser costs more than this script.
return '[' .. table.concat(redis.call('HVALS', KEYS[1]), ',') .. ']'
