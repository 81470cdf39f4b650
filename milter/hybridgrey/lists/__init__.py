"""DNS blocklists and allowlists (RFC 5782): asked all at once, heard until a verdict stands.

A *zone* is a list's domain, a *return code* an address in 127.0.0.0/8 that it answers with, a *test point*
an address that it must, or must not, have.

In reading order: `zones` (what is known of each list), `question` (the bytes of queries and replies),
`exchange` (the datagrams of one client's questions), `findings` (what its answers mean, and for how
long), `lookup` (what is asked, and how long it is waited for), `awaited` (waits as values, and waiting),
`resolver` (what all look-ups share), `cache` and `recall` (answers within their TTL), `upstream` (which
nameserver answers), `tcp` (after truncation), `shared`, `channels` and `stream` (the wire where one loop
reads for all), `texts` (the words for a listing), `health` (which lists have a vote), `resolv` (the
system's nameservers), `names` (a client's name that leads back to it).
"""
