"""Greylisting (RFC 6647): a first attempt is refused for a while, a retry passes and is remembered.

A *triplet* is client network, envelope sender and recipient.

In reading order: `normalise` (what makes two messages the same triplet) with `bounceforms` (what changes in
bounce addresses from message to message), `terms` (on which senders get in), `triplets` with triplets.lua
(what an attempt means, in one round trip), `peek` (what it would mean), `entries` (the triplets as an admin
looks at them), `networks` (clients as an admin writes them).
"""
