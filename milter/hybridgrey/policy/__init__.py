"""What to do with a recipient, decided from facts alone.

A *rule* has conditions and an action; the first rule whose conditions all hold decides.  Conditions are
three-valued: an answer that is not in yet, or a client's word not yet said, is unknown.  Nothing here opens
a socket, reads a clock or asks the store.

In reading order: `pattern` (return codes of DNS lists), `match` (entries for clients, names and addresses,
and one index over all rules) with `prefixes` (networks), `wildcard` and `dotted` (names with ``*``, numbers
that are no address), `rdns` (what a client's name says of it), `conditions` (on what has to be asked for),
`rule` (a rule, and the facts it is judged by), `judge` (facts in; a verdict, or what is still awaited, out),
`trace` (the way to a verdict, in words).
"""
