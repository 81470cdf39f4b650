"""Content scanners: the score that SpamAssassin's spamd or rspamd gives a message.

A *message* is collected as the MTA tells it, up to a size.  Its *envelope* is what the dialogue has said of
it.  A *dialect* makes the request of a scanner and reads its answer: bytes out, bytes in.  A *scan* is one
question, awaited as an answer of the store's is.  Whatever goes wrong, the score is unknown; a scanner that
fails three times in a row is left alone for a while.

Modules, in reading order:

message     what is scanned: the message, its envelope, the ``Received`` line that the MTA will write
question    a scan as a value
spamd       the protocol of SpamAssassin's spamd
rspamd      that of rspamd, over HTTP
wire        a scan done in a thread that waits
scanner     the scanner of a configuration: a message in, its score out
"""
