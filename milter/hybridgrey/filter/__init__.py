"""One connection of the MTA, from CONNECT to the reply for each recipient.

In reading order: `session` (the milter callbacks), `screen` (the sequence for one recipient: rules, lists,
greylist, words of the reply), `followup` (the log line, the counts and the record of a verdict), `counting`
(a verdict as counts), `explain` (the same judgement for one client, with the way to it).
"""
