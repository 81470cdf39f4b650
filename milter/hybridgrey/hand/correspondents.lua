-- Whom we have written to: a key for each, and a count of the new ones of a sender; every call has one key.
--
-- KEYS  1 a correspondent's, or a sender's count
-- ARGV  1 what to do:  ask                  {1} if there is such a correspondent, else {0}
--                      renew  lifetime      the same, and it lives so many seconds from now on
--                      put    lifetime      {1}
--                      bring  seconds age   it lives so many seconds from now on at least, and we wrote to it so
--                                           long ago; {2} it is new, {1} it lives longer now, {0} it did anyway
--                      would  seconds age   what bring would say
--                      grant  wanted most   {how many new ones the sender may have today}, and counts them
local key, doing = KEYS[1], ARGV[1]
local DAY = 86400
local MINUTE = 60  -- times of logs are as exact as that

if doing == 'ask' then return {redis.call('EXISTS', key)} end
if doing == 'renew' and redis.call('EXISTS', key) == 0 then return {0} end
if doing == 'renew' or doing == 'put' then
  redis.call('SET', key, redis.call('TIME')[1], 'EX', ARGV[2])
  return {1}
end
if doing == 'bring' or doing == 'would' then
  local left, seconds = redis.call('TTL', key), tonumber(ARGV[2])
  if left + MINUTE >= seconds then return {0} end
  if doing == 'would' then return {left < 0 and 2 or 1} end
  local wrote = tonumber(redis.call('TIME')[1]) - tonumber(ARGV[3])
  redis.call('SET', key, string.format('%.0f', wrote), 'EX', ARGV[2])
  return {left < 0 and 2 or 1}
end

local today = math.floor(tonumber(redis.call('TIME')[1]) / DAY)
local value = redis.pcall('GET', key)
local day, used = string.match(type(value) == 'string' and value or '', '^(%d+) (%d+)$')
used = tonumber(day) == today and tonumber(used) or 0
local granted = math.max(0, math.min(tonumber(ARGV[2]), tonumber(ARGV[3]) - used))
redis.call('SET', key, string.format('%.0f %.0f', today, used + granted), 'EX', DAY)
return {granted}
