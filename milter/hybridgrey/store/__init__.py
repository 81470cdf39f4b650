"""Scripts in Redis or Valkey: one call, one round trip, and what happens when the server does not answer.

In reading order: `connection` (the store as the rest of the program sees it), `breaker` (when a store that
fails is left alone), `link` (one call on one server), `pipeline` (many calls, where nothing may wait),
`plain` (TCP and unix sockets), `redis_py` (TLS, Sentinel and Cluster, by redis-py), `pages` (all keys,
looked through), `embedded` (the server
that the daemon runs for a single host), `binary` (which program that is), `machine` (how much memory it may
take).
"""
