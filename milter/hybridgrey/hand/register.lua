-- Entries by hand, all in one hash, so that one key holds them whatever kind of server it is.
--
-- KEYS  1 the hash: field "version", any other is an entry (see entries.py)
-- ARGV  1 what to do: look, read, put, take, restore   2 most entries   then by what is done:
--       put      seconds to last (0: no end), the part of the value that is said, fields...
--       take     fields...
--       restore  field, value, field, value...
--
-- The version is the moment of the last change in microseconds, and larger than the one before. Not a count: a
-- server that was put in the place of a lost one may have missed the last change, and the next one would then
-- give another content the same number. It is 0 while the store has no entries and never had any.
--
-- The hash has no time to live: a server short of memory lets go first of what has one. Entries whose time is
-- over are taken away at the next change. A key of another type counts as nothing and is overwritten.
local VERSION = 'version'
local key, doing, most = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now, moment = tonumber(time[1]), tonumber(time[1]) * 1000000 + tonumber(time[2])

local size = redis.pcall('HLEN', key)
local sound = type(size) == 'number'

local function version()
  local value = sound and redis.pcall('HGET', key, VERSION)
  if type(value) == 'string' and #value <= 16 and string.find(value, '^%d+$') then
    return tonumber(value)
  end
  return 0
end

local function changed()
  redis.call('HSET', key, VERSION, string.format('%.0f', math.max(moment, version() + 1)))
end

local function settle()
  if not sound then redis.call('DEL', key) end
  sound = true
  local flat, gone = redis.call('HGETALL', key), 0
  for i = 1, #flat, 2 do
    local ends = tonumber(string.match(flat[i + 1], '^%d+ (%d+) ') or '')
    if ends and ends > 0 and ends <= now then
      redis.call('HDEL', key, flat[i])
      gone = gone + 1
    end
  end
  return #flat / 2 - gone
end

if doing == 'look' then return {version(), now} end

if doing == 'read' then
  if not sound then return {0, now} end
  if size > most + 1 then return {-1, now} end
  local found, flat = {version(), now}, redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    if flat[i] ~= VERSION and #flat[i] <= 600 and #flat[i + 1] <= 2048 then
      found[#found + 1], found[#found + 2] = flat[i], flat[i + 1]
    end
  end
  return found
end

if doing == 'restore' then
  -- Lost is only what is not there at all: entries without a version are somebody's, too.
  if sound and size > 0 then return {0} end
  redis.call('DEL', key)
  sound = true
  for i = 3, #ARGV, 2 do redis.call('HSET', key, ARGV[i], ARGV[i + 1]) end
  changed()
  return {1}
end

local before = {}
if doing == 'put' then
  local count, lasts = settle(), tonumber(ARGV[3])
  for i = 5, #ARGV do
    before[#before + 1] = redis.call('HGET', key, ARGV[i]) or ''
    if before[#before] == '' then count = count + 1 end
  end
  if count > most + 1 then return {-1} end
  local value = string.format('%.0f %.0f %s', now, lasts > 0 and now + lasts or 0, ARGV[4])
  for i = 5, #ARGV do redis.call('HSET', key, ARGV[i], value) end
  changed()
elseif sound then
  local taken = 0
  settle()
  for i = 3, #ARGV do
    before[#before + 1] = redis.call('HGET', key, ARGV[i]) or ''
    taken = taken + redis.call('HDEL', key, ARGV[i])
  end
  if taken > 0 then changed() end
end
return {1, unpack(before)}
