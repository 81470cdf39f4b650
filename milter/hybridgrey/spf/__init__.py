"""SPF (RFC 7208): whether a client may send for a domain, and whether that proves who it is.

Decisions know neither socket nor clock.  `evaluate` and `pools` are generators: they yield the DNS questions
that they need and are resumed with the answers, in the order of the questions.  `exp=` is checked and never
used: a refusal's text is the admin's, not the sender's.

Words: a *record* is the text ``v=spf1 ...`` of a domain, made of *terms*: mechanisms with a qualifier, and
modifiers.  A *look-up* is a term that costs a question; ten are allowed for one evaluation, and two *void*
ones, whose name does not exist or has no such data.  A pass *proves* the client if the term that matched
names it: with a network that is narrow enough, in a record that does not authorise half the world, and
reached without a macro that the client or the sender can choose.  A *pool* is what a domain's record
authorises whoever the sender is.

Modules, in reading order:

question    what is asked and answered, and which names can be asked
macro       ``%{ir}.%{v}._spf.%{d2}``: parsed once, expanded for each client (section 7)
record      the text of a record as frozen terms, or what is wrong with it, and where (sections 4.6, 5, 6)
proof       how wide a network, and all networks of a record together, may be to prove a client
walk        what an evaluation may cost: look-ups, void ones, records, their TTL (section 4.6.4)
evaluate    the result for one client and one sender, the term that gave it, its proof, its TTL (section 4)
ranges      sets of addresses: what is in one and not in another
pools       the networks of a domain, for all clients at once
poolstate   what is known of the pools, as bytes for a file and for the workers
poolindex   which pools a client is in
wire        questions and replies as bytes
cache       answers within their TTL
carrier     evaluations on the wire of the look-ups: what is asked, waited for, remembered
"""
