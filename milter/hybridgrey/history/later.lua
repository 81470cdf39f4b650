-- Counts in the history what a mail log says of recorded verdicts, each once however often it is said.
--
-- KEYS  1 the verdicts of a host and some minutes that a log has told of  2 those of them that were spam
--       (sets of numbers)  3, 4, 5 the chapters of the minute, the hour and the day (hashes)
-- ARGV  1 seconds for which 1 and 2 are kept  2, 3, 4 those of the chapters, 0: nothing is counted there
--       5 "would": count nothing, only say what would be; then for each verdict five words: its number, "1" if it
--       was spam, the series of 1 and of 2, and the numbers of minute, hour and day within their chapters as
--       one text "MM HH DD"
-- Gives {told of for the first time, spam for the first time}.
--
-- What holds something of another type is damage and begins anew.
local TYPES = {'set', 'set', 'hash', 'hash', 'hash'}
local would = ARGV[5] == 'would'

for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= TYPES[i] then
    if would then return {0, 0} end
    redis.call('DEL', key)
  end
end

local function count(series, steps)
  local at = 2
  for step in string.gmatch(steps, '%d+') do
    at = at + 1
    if tonumber(ARGV[at - 1]) > 0 then
      local field = step .. ' ' .. series
      local reply = redis.pcall('HINCRBY', KEYS[at], field, 1)
      if type(reply) == 'table' then redis.call('HSET', KEYS[at], field, 1) end
    end
  end
end

local function first(key, number)
  if would then return redis.call('SISMEMBER', key, number) == 0 end
  return redis.call('SADD', key, number) == 1
end

local told, spam = 0, 0
for i = 6, #ARGV, 5 do
  local number, is_spam, of_told, of_spam, steps = unpack(ARGV, i, i + 4)
  if first(KEYS[1], number) then
    told = told + 1
    if not would then count(of_told, steps) end
  end
  if is_spam == '1' and first(KEYS[2], number) then
    spam = spam + 1
    if not would then count(of_spam, steps) end
  end
end
if not would then
  redis.call('EXPIRE', KEYS[1], ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[1])
  for i = 3, 5 do
    if tonumber(ARGV[i - 1]) > 0 then redis.call('EXPIRE', KEYS[i], ARGV[i - 1]) end
  end
end
return {told, spam}
