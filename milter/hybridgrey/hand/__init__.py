"""Entries by hand and expected mail: what an admin says at a command line, in effect on all hosts.

An *entry* says of a *subject* (a client, a sender or a recipient) that it is allowed or blocked, by whom,
since when, until when and why.  A *register* is where the store keeps them, with a *version* that every
change raises. A *table* is what a worker has of them in memory.  *Expected mail* is a recipient whose mail
is not delayed for a while.

In reading order: `entries` (one entry), `register` (all of them in the store), `table` (in memory),
`keptcopy` (on disk), `expected` (expected mail), `correspondents` (whom we have written to), `remembered`
(these as an admin sees them), `hidden` (names that the store is not to have in clear).
"""
