"""The protocol of rspamd: POST /checkv2 over HTTP, answered in JSON (https://docs.rspamd.com/developers/protocol)."""

from __future__ import annotations

import http.client
import io
import json
import math
import re
from collections.abc import Iterator
from typing import Final

from hybridgrey.content.message import Envelope, path, received, word
from hybridgrey.content.question import Opinion, ScanError

_LENGTH: Final = re.compile(rb"(?mi)^content-length: *([0-9]{1,8}) *\r$")
_SPAM: Final = frozenset({"reject", "add header", "rewrite subject", "quarantine"})
"""Actions for spam; greylisting and soft rejects are for what may be."""
_MOST_RECIPIENTS: Final = 100


class Rspamd:
    """rspamd's worker ``normal`` (`question.Dialect`)."""

    most = 1 << 20
    half_close = False

    def request(self, envelope: Envelope, message: bytes) -> bytes:
        """The bytes to send; what the dialogue has said goes into the request's own header."""
        body = received(envelope) + message
        head = [
            "POST /checkv2 HTTP/1.1",
            "Host: rspamd",
            "Connection: close",
            f"Content-Length: {len(body)}",
            *_said(envelope),
        ]
        return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + body

    def complete(self, answer: bytes | bytearray) -> bool:
        """Whether as much has come as the head announces."""
        end = answer.find(b"\r\n\r\n")
        if end < 0:
            return False
        length = _LENGTH.search(answer, 0, end + 2)
        return length is not None and len(answer) >= end + 4 + int(length[1])

    def read(self, answer: bytes) -> Opinion:
        """The score, and whether the action is one for spam.  Raises ScanError."""
        try:
            status, body = _read(answer)
            found = json.loads(body) if status == http.client.OK else None
        # Lengths beyond all numbers of the machine overflow.
        except (http.client.HTTPException, ValueError, OSError, OverflowError, RecursionError):
            raise ScanError("no answer of rspamd's" if answer else "no answer") from None
        if status != http.client.OK:
            raise ScanError(f"rspamd says {status}")
        # It says is_skipped of GTUBE and of whom its own settings let in, too, and means the score.
        said = found if isinstance(found, dict) else {}
        action = said.get("action")
        return Opinion(_number(said.get("score")), action in _SPAM if isinstance(action, str) else None)


def _said(envelope: Envelope) -> Iterator[str]:
    """The fields of the request's header."""
    address = word(envelope.address)
    if address and envelope.address[:1].isalnum():
        yield f"IP: {address}"
    for name, value in (
        ("Helo", envelope.helo),
        ("Hostname", envelope.host),
        ("User", envelope.login),
        ("Queue-Id", envelope.queue_id),
        ("MTA-Name", envelope.name),
    ):
        if value:
            yield f"{name}: {word(value)}"
    yield f"From: {path(envelope.sender)}"
    for recipient in envelope.recipients[:_MOST_RECIPIENTS]:
        yield f"Rcpt: {path(recipient)}"


class _Bytes:
    """An answer as `http.client` wants it: a socket that is read as a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _read(answer: bytes) -> tuple[int, bytes]:
    """Status and body of an HTTP answer; raises what `http.client` does."""
    response = http.client.HTTPResponse(_Bytes(answer), method="POST")  # type: ignore[arg-type]  # read only
    response.begin()
    return response.status, response.read()


def _number(value: object) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass  # an integer beyond all floats
    raise ScanError("rspamd gives no score")
