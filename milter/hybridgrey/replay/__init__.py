"""What would have become of recorded mail under other rules: no store, no DNS, no clock.

A *message* is one mail to one recipient with its *attempts*: when it came, from where, and what was known of
the client then. A *trial* is a configuration that messages are put through. The attempts of all messages run
in order of time, for what the greylist knows depends on it; a message ends with its first acceptance or
permanent refusal.

In reading order: `messages` (what is recorded of a message), `verdictlog` (the same from our own log),
`reading` (lines to messages), `greylist` (what the greylist's script does, as a function), `names` (of its
keys), `judgement` (one attempt: what is asked, and in which order), `unknown` (rules without the facts that a
record has not), `trial` (a configuration and what it does with attempts), `running` (all attempts), `summary`
(what became of them, and where two configurations differ).
"""
