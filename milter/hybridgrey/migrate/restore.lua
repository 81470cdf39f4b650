-- What another greylister knew of one client network, written beside what is known here.
--
-- KEYS  1 network  2 its credit  3... triplets, the first attempts in order of time; values as in triplets.lua
-- ARGV  1 retry window  2 lifetime (seconds)  3 auto-allow threshold, 0 = never  4 "1" = only look
--       5 credit interval (seconds), 0 = each pass counts
--       6 last mail of a client of the network that was allowed as a whole, 0 = none was
--       then for each triplet: "1" passed or "0" waiting, time of its first attempt, time of its last mail
-- Gives {passed, renewed, waiting, kept, expired, network allowed (0 or 1)}, numbers of triplets but the last.
--
-- Nothing known here gets worse: no expiry is shortened, no passed triplet waits again, no wait starts anew.
-- Nor does a network earn here what it could not have earned with us: of triplets that began within one credit
-- interval one counts.
local window, lifetime, threshold = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local look, interval, allowed_at = ARGV[4] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])
local now = tonumber(redis.call('TIME')[1])
local passed, renewed, waiting, kept, expired, allowed = 0, 0, 0, 0, 0, 0

local function integer(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'string' and #value <= 12 and string.find(value, '^-?%d+$') then
    return tonumber(value)
  end
  return 0
end

local function write(...)
  if not look then redis.call(...) end
end

local function left(since, span) -- of a time span that began at `since`; clocks may differ
  return span - math.max(0, now - since)
end

-- Gives whether the key lives longer now; one without an expiry lives for ever.  TTL is in rounded seconds: one
-- second more is none.
local function prolong(key, seconds)
  local has = redis.call('TTL', key)
  if has == -1 or has + 1 >= seconds then return false end
  write('EXPIRE', key, seconds)
  return true
end

local before = integer(KEYS[2])
local latest, earned = before, 0

local function earn(first)
  if interval > 0 then
    if math.abs(first - before) < interval or math.abs(first - latest) < interval then return end
    latest = first
  end
  earned = earned + 1
end

local longest = 0
for i = 3, #KEYS do
  local at = 7 + 3 * (i - 3)
  local first = math.max(1, math.min(now, tonumber(ARGV[at + 1])))
  local known = integer(KEYS[i])
  if ARGV[at] == '1' then
    local seconds = left(tonumber(ARGV[at + 2]), lifetime)
    if seconds <= 0 then
      expired = expired + 1
    elseif known < 0 then
      longest = math.max(longest, seconds)
      if prolong(KEYS[i], seconds) then renewed = renewed + 1 else kept = kept + 1 end
    else
      longest = math.max(longest, seconds)
      passed = passed + 1
      earn(first)
      write('SET', KEYS[i], -first, 'EX', seconds)
    end
  elseif left(first, window) <= 0 then
    expired = expired + 1
  elseif known ~= 0 then
    kept = kept + 1
  else
    waiting = waiting + 1
    write('SET', KEYS[i], first, 'EX', left(first, window))
  end
end

local passes = math.max(0, integer(KEYS[1]))
local count = passes + earned
local seconds = allowed_at > 0 and left(allowed_at, lifetime) or 0
if threshold > 0 and seconds > 0 then
  longest = math.max(longest, seconds)
  if passes < threshold then allowed = 1 end
  count = math.max(count, threshold)
end
if count > passes then
  local has = passes > 0 and redis.call('TTL', KEYS[1]) or 0
  if has == -1 then
    write('SET', KEYS[1], count)
  else
    write('SET', KEYS[1], count, 'EX', math.max(has, longest))
  end
  if latest > before then write('SET', KEYS[2], latest, 'EX', math.max(lifetime, interval)) end
elseif passes > 0 and longest > 0 then
  prolong(KEYS[1], longest)
end
return {passed, renewed, waiting, kept, expired, allowed}
