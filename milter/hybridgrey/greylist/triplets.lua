-- What one attempt of a triplet means, and the change that it makes (DESIGN section 5).
--
-- KEYS  1 triplet: an integer, +T waiting or -T passed, T = time of the first attempt (Unix seconds)
--       2 network: an integer, the number of its triplets that passed and counted
--       3 credit: an integer, when that number last grew (Unix seconds)
--       4 waiting triplets of the client's address by slots of time, which are an eighth of the retry window:
--         for each slot, parted by blanks, 10 digits when it begins (Unix seconds) and 8 digits how many had
--         their first attempt in it. Most addresses have one slot only, and that is an integer, too
--       5 the hash of expected mail (see expected.lua), if it is to be looked at too
-- ARGV  1 delay  2 retry window  3 lifetime (all seconds)  4 auto-allow threshold, 0 = never
--       5 what is asked:
--         0 an attempt
--         1 only look: answer as if this were an attempt, change nothing
--         2 an attempt, of which nothing is kept if it is the first
--         3 no attempt: take over what the triplet's other key says, 8 and 9; earns no credit
--       6 credit interval (seconds), 0 = each pass counts  7 most waiting triplets of an address, 0 = no bound
--       8 seconds since the first attempt as the triplet's other key knows it, 0 = it does not (may be left out)
--       9 "1" = the triplet has passed by its other key (for 3 only)  10 the recipient's field in key 5
-- Gives {state, seconds left, age}; states as in triplets.py. With key 5 a delay has a fourth: whether mail for the
-- recipient is expected, 1 or 0.
--
-- A triplet has two keys: by the client's network, and by the sender's domain where SPF proves the client. Each
-- is a client of its own here, with a count and a credit; 8 and 9 are how one learns of the other.
--
-- One integer a key: the server then stores it without a string of its own. The time of the first attempt is
-- kept in both states, so that age means one thing. Whatever else is found under a key (another
-- type, text, a number that is no time) counts as nothing and is overwritten.
--
-- Version 0.1 reads and writes keys 1 and 2 alone and takes the others for somebody else's. So what is new has
-- keys of its own: on a host of 0.1 each pass counts, and nothing is bounded, but no number is misread.
local NEW, EARLY, PASSED, KNOWN, NETWORK, FULL = 0, 1, 2, 3, 4, 5
local SLOTS, MOST_TEXT = 8, 512
local ONE_SLOT = '(%d%d%d%d%d%d%d%d%d%d)(%d%d%d%d%d%d%d%d)'
local delay, window, lifetime, threshold =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local LOOK, KEEP_NOTHING, TAKE_OVER = '1', '2', '3'
local mode, since = ARGV[5], tonumber(ARGV[8] or 0)
local look = mode == LOOK
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

-- What an attempt is told that would be delayed.
local function delayed(state, left, age)
  local hoped
  if KEYS[5] then
    local value = redis.pcall('HGET', KEYS[5], ARGV[10])
    local ends = type(value) == 'string' and tonumber(string.match(value, '^(%d+) ') or '') or 0
    hoped = ends > now and 1 or 0
  end
  return {state, left, age, hoped}
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
local fresh = first == 0 or age < 0 or age > window
local before = fresh and 0 or first
if since > 0 and since <= window and (fresh or since > age) then
  first, age, fresh = now - since, since, false
end
if not fresh and age < delay and mode ~= TAKE_OVER then
  if first ~= before then write('SET', KEYS[1], first, 'EX', math.max(1, window - age)) end
  return delayed(EARLY, delay - age, age)
end

-- From here on something is counted; what most attempts do not need is not even defined for them.
local interval, most = tonumber(ARGV[6]), tonumber(ARGV[7])
local width = math.ceil(window / SLOTS)

-- The slots that can still have a waiting triplet in them, and the sum of their numbers. A slot goes as a whole
-- when its last triplet must have expired, so one that has expired may count for an eighth of the window more.
local function waiting()
  local value, slots, total = redis.pcall('GET', KEYS[4]), {}, 0
  if type(value) == 'string' and #value <= MOST_TEXT then
    for start, number in string.gmatch(value, ONE_SLOT) do
      start, number = tonumber(start), tonumber(number)
      if start <= now and now < start + width + window then
        slots[#slots + 1] = {start, number}
        total = total + number
      end
    end
  end
  return slots, total
end

-- One more or less that had its first attempt at a time. A triplet that is not found was counted for a
-- neighbour that began, by a host of 0.1, or under another window; there its number goes with its slot.
local function note(slots, first, change)
  local start, found, newest, text = first - first % width, false, 0, {}
  for _, slot in ipairs(slots) do
    if slot[1] == start then
      slot[2], found = slot[2] + change, true
    end
  end
  if not found then
    if change < 0 then return end
    slots[#slots + 1] = {start, change}
  end
  for _, slot in ipairs(slots) do
    if slot[2] > 0 then
      text[#text + 1] = string.format('%010d%08d', slot[1], slot[2])
      newest = math.max(newest, slot[1])
    end
  end
  if #text > 0 then
    write('SET', KEYS[4], table.concat(text, ' '), 'EX', newest + width + window - now)
  else
    write('DEL', KEYS[4])
  end
end

-- The last time is kept for the lifetime, not for the interval: a server that is short of memory lets go first
-- of what expires first, and a full store must not make credit cheap.
local function credit(passes)
  if interval > 0 then
    local last = integer(KEYS[3])
    if last > 0 and last <= now and now - last < interval then
      if passes > 0 then write('EXPIRE', KEYS[2], lifetime) end
      return
    end
    write('SET', KEYS[3], now, 'EX', math.max(lifetime, interval))
  end
  write('SET', KEYS[2], passes + 1, 'EX', lifetime)
end

if mode == TAKE_OVER then
  local passed = ARGV[9] == '1'
  first = passed and now - since or first
  if most > 0 and first ~= before and (before > 0 or not passed) then
    local slots = waiting()
    if before > 0 then note(slots, before, -1) end
    if not passed then note(slots, first, 1) end
  end
  if passed then
    write('SET', KEYS[1], -first, 'EX', lifetime)
  elseif first ~= before then
    write('SET', KEYS[1], first, 'EX', math.max(1, window - age))
  end
  return {passed and KNOWN or EARLY, 0, now - first}
end

if fresh and mode == KEEP_NOTHING then return delayed(NEW, math.max(1, delay), 0) end

if fresh then
  if most > 0 then
    local slots, total = waiting()
    -- What is there already needs no room, so only what is not is turned away.
    if first == 0 and total >= most then return delayed(FULL, math.max(1, delay), 0) end
    note(slots, now, 1)
  end
  write('SET', KEYS[1], now, 'EX', window)
  return delayed(NEW, math.max(1, delay), 0)
end

write('SET', KEYS[1], -first, 'EX', lifetime)
if most > 0 then note(waiting(), first, -1) end
credit(passes)
return {PASSED, 0, age}
