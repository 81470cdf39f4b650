"""Reports from logs and from the history: what was rejected, delayed and let in, before and after.

In reading order: `logtime`, `maillog`, `sendmaillog` and `greytexts` (lines of a mail log), `bins` (counts by
time), `observed` (verdicts summed up), `comparison` (before and after the filter was switched on), `graphs`,
`svg` and `document` (as pictures and as one HTML file); `spamwords`, `mailways` and `spamjoin` (what a mail
log says later of recorded verdicts).
"""
