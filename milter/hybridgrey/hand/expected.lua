-- Expected mail, all in one hash: a read of one field when a recipient would be delayed.
--
-- KEYS  1 the hash: a field for each recipient, its value when it ends (Unix seconds), a blank, who said so
-- ARGV  1 what to do: ask, put, take, list   2 field (not list)   then for put: seconds to last, who, most fields
-- Gives {seconds left}, 0 for none; put gives {-1} when there are too many; list {field, seconds left, who...}
--
-- The hash lives long after the last of its times is over: a server short of memory lets go first of what
-- expires first. So each time is in the value, and what is over is taken away at the next put.
local key, doing = KEYS[1], ARGV[1]
local now = tonumber(redis.call('TIME')[1])
local LIVES = 40 * 86400

local function left(value)
  local ends = type(value) == 'string' and tonumber(string.match(value, '^(%d+) ') or '') or 0
  return math.max(0, math.min(ends - now, LIVES))
end

if doing == 'ask' then return {left(redis.pcall('HGET', key, ARGV[2]))} end

local flat = redis.pcall('HGETALL', key)
if flat.err then
  if doing ~= 'put' then return {0} end
  redis.call('DEL', key)
  flat = {}
end

if doing == 'list' then
  local found = {}
  for i = 1, #flat, 2 do
    local seconds = left(flat[i + 1])
    if seconds > 0 and #flat[i] <= 1024 and #flat[i + 1] <= 1024 then
      found[#found + 1], found[#found + 2], found[#found + 3] =
        flat[i], seconds, string.match(flat[i + 1], '^%d+ (.*)$')
    end
  end
  return found
end

if doing == 'take' then
  local seconds = left(redis.call('HGET', key, ARGV[2]))
  redis.call('HDEL', key, ARGV[2])
  return {seconds}
end

local count = 0
for i = 1, #flat, 2 do
  if left(flat[i + 1]) == 0 then
    redis.call('HDEL', key, flat[i])
  elseif flat[i] ~= ARGV[2] then
    count = count + 1
  end
end
if count >= tonumber(ARGV[5]) then return {-1} end
redis.call('HSET', key, ARGV[2], string.format('%.0f %s', now + tonumber(ARGV[3]), ARGV[4]))
redis.call('EXPIRE', key, LIVES)
return {tonumber(ARGV[3])}
