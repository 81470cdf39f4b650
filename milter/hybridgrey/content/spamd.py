"""The protocol of SpamAssassin's spamd (spamd/PROTOCOL in its source): CHECK, which gives no message back."""

from __future__ import annotations

import math
import re
from typing import Final

from hybridgrey.content.message import Envelope, received, return_path
from hybridgrey.content.question import Opinion, ScanError

_STATUS: Final = re.compile(rb"SPAMD/[0-9.]{1,8} ([0-9]{1,5}) ([!-~]{0,64})")
_SPAM: Final = re.compile(rb"(?mi)^Spam: *([a-z]{1,8}) *; *(-?[0-9]{1,9}(?:\.[0-9]{1,9})?) */")
_WORDS: Final = {b"true": True, b"yes": True, b"false": False, b"no": False}


class Spamd:
    """spamd (`question.Dialect`); its scores have one digit after the point."""

    most = 8192
    half_close = True

    def request(self, envelope: Envelope, message: bytes) -> bytes:
        """The bytes to send; the fields that the MTA will add stand before the message's own."""
        fields = return_path(envelope) + received(envelope)
        length = len(fields) + len(message)
        return b"CHECK SPAMC/1.5\r\nContent-length: %d\r\n\r\n%s%s" % (length, fields, message)

    def complete(self, answer: bytes | bytearray) -> bool:
        """Whether the head is all there: nothing else is wanted."""
        return b"\r\n\r\n" in answer

    def read(self, answer: bytes) -> Opinion:
        """The score, and whether it reaches spamd's own threshold.  Raises ScanError."""
        status = _STATUS.match(answer)
        if status is None:
            raise ScanError("no answer of spamd's" if answer else "no answer")
        if int(status[1]):
            raise ScanError(f"spamd says {int(status[1])} {status[2].decode()}")
        found = _SPAM.search(answer)
        if found is None or not math.isfinite(score := float(found[2])):
            raise ScanError("spamd gives no score")
        return Opinion(score, _WORDS.get(found[1].lower()))
