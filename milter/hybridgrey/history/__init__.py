"""What every host has counted, by minute, hour and day, kept in the store for years.

A *chapter* is one key: an hour of minutes, a day of hours or a month of days.  A *mark* is a notable
moment, a *top* the heaviest networks or domains of a day, a *chunk* some hundred verdicts, compressed.

In reading order: `layout` (names and places), `records` and `chunks` (what is kept), `ledger` (what this host
has counted and not yet written), `recorder` (the task that enters and writes it), `writer` with history.lua
and `chunkwriter` with chunks.lua, `later` with later.lua (what mail logs say of verdicts), `reader` and
`chunkreader`, `view` (the store and the ledger as one), `past` (how far back it goes).
"""
