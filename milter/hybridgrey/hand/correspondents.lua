-- Whom we have written to: a key for each, and a count of the new ones of a sender; every call has one key.
--
-- KEYS  1 a correspondent's, or a sender's count
-- ARGV  1 what to do:  ask                  {1} if there is such a correspondent, else {0}
--                      renew  lifetime      the same, and it lives so many seconds from now on
--                      put    lifetime      {1}
--                      grant  wanted most   {how many new ones the sender may have today}, and counts them
local key, doing = KEYS[1], ARGV[1]
local DAY = 86400

if doing == 'ask' then return {redis.call('EXISTS', key)} end
if doing == 'renew' then return {redis.call('EXPIRE', key, ARGV[2])} end
if doing == 'put' then
  redis.call('SET', key, redis.call('TIME')[1], 'EX', ARGV[2])
  return {1}
end

local today = math.floor(tonumber(redis.call('TIME')[1]) / DAY)
local value = redis.pcall('GET', key)
local day, used = string.match(type(value) == 'string' and value or '', '^(%d+) (%d+)$')
used = tonumber(day) == today and tonumber(used) or 0
local granted = math.max(0, math.min(tonumber(ARGV[2]), tonumber(ARGV[3]) - used))
redis.call('SET', key, string.format('%.0f %.0f', today, used + granted), 'EX', DAY)
return {granted}
