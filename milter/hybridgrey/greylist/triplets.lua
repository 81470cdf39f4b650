-- What one attempt of a triplet means, and the change that it makes (DESIGN section 5).
--
-- KEYS  1 triplet: an integer, +T waiting or -T passed, T = time of the first attempt (Unix seconds)
--       2 network: an integer, the number of its triplets that passed
-- ARGV  1 delay  2 retry window  3 lifetime (all seconds)  4 auto-allow threshold, 0 = never
--       5 "1" = only look: answer as if this were an attempt, change nothing
-- Gives {state, seconds left, age}; states as in triplets.py.
--
-- One integer a key: the server then stores it without a string of its own. The time of the first attempt is
-- kept in both states, so that age means one thing. Whatever else is found under a key (another
-- type, text, a number that is no time) counts as nothing and is overwritten.
local NEW, EARLY, PASSED, KNOWN, NETWORK = 0, 1, 2, 3, 4
local delay, window, lifetime, threshold =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local look = ARGV[5] == '1'
local now = tonumber(redis.call('TIME')[1])

local function integer(key)
  local value = redis.pcall('GET', key) -- an error table for a key of another type
  if type(value) == 'string' and #value <= 12 and string.find(value, '^-?%d+$') then
    return tonumber(value)
  end
  return 0
end

local function write(...)
  if not look then redis.call(...) end
end

local first = integer(KEYS[1])
local passes = math.max(0, integer(KEYS[2]))

-- A network's count lives as long as any of its mail is seen; else it would forget triplets that are still known.
if first < 0 then
  write('EXPIRE', KEYS[1], lifetime)
  if passes > 0 then write('EXPIRE', KEYS[2], lifetime) end
  return {KNOWN, 0, math.max(0, now + first)}
end

if threshold > 0 and passes >= threshold then
  write('EXPIRE', KEYS[2], lifetime)
  return {NETWORK, 0, first > 0 and math.max(0, now - first) or 0}
end

-- An attempt in the future is damage, or the clock was set back: start again, so that nobody waits
-- longer than one delay. One before the window can be left when the configured window was shortened.
local age = now - first
if first == 0 or age < 0 or age > window then
  write('SET', KEYS[1], now, 'EX', window)
  return {NEW, math.max(1, delay), 0}
end

if age < delay then
  return {EARLY, delay - age, age}
end

write('SET', KEYS[1], -first, 'EX', lifetime)
write('SET', KEYS[2], passes + 1, 'EX', lifetime)
return {PASSED, 0, age}
