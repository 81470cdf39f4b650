"""Bringing along what another program has: its rules, and the senders it knows.

In reading order: `found` (a rule for each thing found, or why there is none), `maincf`, `restrictions`,
`policyservices`, `replymaps`, `accessmap` and `postfix` (from a main.cf), `cidrtable`, `indexedtable`,
`addressset` and `namepattern` (its tables of clients), `whitelists` (postgrey's), `configfile` (the rules as
TOML), `greylisters` (what other greylisters keep on disk), `restore` with restore.lua (known senders written
into our store), `sentmail` (whom we have written to, by Postfix's log).
"""
