"""One connection of the MTA, from CONNECT to the reply for each recipient.

In reading order: `session` (its steps), `macros` (what the MTA says beside them), `transaction` (what is
known of client and mail, and what was decided), `screen` (from CONNECT to the words of the reply),
`judgement` (one recipient: what is asked and in which order), `proof` (SPF for a mail), `scored` (a judgement
that may want the score), `prospect` (what it would be without) and `pending` (recipients who wait for the
score), `awaited` (what a judgement waits for) and `blocking` (a thread that waits for it), `reply` (the words
of replies), `headers` and `forged` (what is done to a message's header), `reason` (why, in a word),
`followup` (the log line, the counts and the record of a verdict), `counting` (a verdict as counts), `explain`
(the same judgement for one client, and the way to it), `learning` (whom we write to).
"""
