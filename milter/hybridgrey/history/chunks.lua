-- Adds chunks of verdicts to what is kept of one host, and lets the oldest go: those that are too old, and
-- those that are too many.
--
-- KEYS  1 the chunks (sorted set, by the time of the last verdict)  2 what they take (hash: bytes, number)
-- ARGV  1 the time, Unix seconds  2 seconds they are kept; 0: nothing is kept, all goes  3 bytes and 4 verdicts
--       they may have  5 what a chunk takes beside its own bytes; then for each chunk: time, chunk
-- Gives {bytes, verdicts}.
--
-- A chunk that is there already is not counted again, so a call that is repeated has no effect. A call lets go
-- of some hundred chunks at most, for mail waits for the server meanwhile; the next one goes on.
local MOST = 300
local TYPES = {'zset', 'hash'}

for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= TYPES[i] then redis.call('DEL', key) end
end
if tonumber(ARGV[2]) <= 0 then
  redis.call('DEL', KEYS[1], KEYS[2])
  return {0, 0}
end

local bytes, number = 0, 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  bytes = tonumber(redis.call('HGET', KEYS[2], 'bytes') or 0) or 0
  number = tonumber(redis.call('HGET', KEYS[2], 'number') or 0) or 0
end

local function count(chunk, sign)
  bytes = math.max(0, bytes + sign * (#chunk + ARGV[5]))
  number = math.max(0, number + sign * (tonumber(string.match(chunk, '^1 (%d+) ')) or 0))
end

for i = 6, #ARGV, 2 do
  if redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then count(ARGV[i + 1], 1) end
end

local gone = 0
local function let_go(chunks)
  for _, chunk in ipairs(chunks) do
    redis.call('ZREM', KEYS[1], chunk)
    count(chunk, -1)
    gone = gone + 1
  end
  return #chunks > 0
end

let_go(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. (ARGV[1] - ARGV[2]), 'LIMIT', 0, MOST))
while gone < MOST and (bytes > tonumber(ARGV[3]) or number > tonumber(ARGV[4])) do
  if not let_go(redis.call('ZRANGE', KEYS[1], 0, 0)) then break end
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[2])
  return {0, 0}
end
redis.call('HSET', KEYS[2], 'bytes', string.format('%d', bytes), 'number', string.format('%d', number))
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return {bytes, number}
