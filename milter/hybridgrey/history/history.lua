-- Adds what one host has counted to the history, all of it or, when it was added before, nothing.
--
-- KEYS  1 number of the last batch that this writer has added; then one key for each change
-- ARGV  1 number of this batch  2 seconds for which key 1 is kept  3 the time, Unix seconds
--       then for each further key: kind, seconds it is kept, how many entries it may have (0: any), number of
--       pairs, and the pairs
-- Kinds and their pairs: hash (field, count to add), top (count to add, member), recent (time, member; goes by
--       itself when it is older than the key is kept)
-- Gives {1}, or {0} when the batch was there already.
--
-- The first write is the number: a server that takes no writes (full, a replica) refuses it, and nothing is done
-- by half.  What holds something of another type is damage and begins anew.
local TYPES = {hash = 'hash', top = 'zset', recent = 'zset'}

if (tonumber(redis.pcall('GET', KEYS[1]) or 0) or 0) >= tonumber(ARGV[1]) then return {0} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])

local at = 4
for i = 2, #KEYS do
  local key, kind, cap = KEYS[i], ARGV[at], tonumber(ARGV[at + 2])
  local last = at + 3 + 2 * tonumber(ARGV[at + 3])
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= TYPES[kind] then redis.call('DEL', key) end
  for j = at + 4, last, 2 do
    local one, other = ARGV[j], ARGV[j + 1]
    if kind == 'hash' then
      local reply = redis.pcall('HINCRBY', key, one, other)
      if type(reply) == 'table' then redis.call('HSET', key, one, other) end
    elseif kind == 'top' then
      redis.call('ZINCRBY', key, one, other)
    else
      redis.call('ZADD', key, one, other)
    end
  end
  if kind == 'recent' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[3] - ARGV[at + 1])
  end
  if cap > 0 then
    redis.call('ZREMRANGEBYRANK', key, 0, -cap - 1)
  end
  redis.call('EXPIRE', key, ARGV[at + 1])
  at = last + 1
end
return {1}
