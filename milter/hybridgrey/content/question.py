"""A scan, as a value that is awaited: resumed with the answer's bytes, or with a ScanError thrown in."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from hybridgrey.config.sockets import Address
from hybridgrey.content.message import Envelope


class ScanError(Exception):
    """There is no score, and this is why."""


class Opinion(NamedTuple):
    """A scanner's word: the score, and whether by its own measure that is spam; None: it does not say."""

    score: float
    spam: bool | None = None


class Dialect(Protocol):
    """What a scanner speaks; without I/O."""

    @property
    def most(self) -> int:
        """Bytes that an answer has at most."""

    @property
    def half_close(self) -> bool:
        """Whether the end of a request is told by closing that way."""

    def request(self, envelope: Envelope, message: bytes) -> bytes:
        """The bytes to send."""

    def complete(self, answer: bytes | bytearray) -> bool:
        """Whether an answer is all there, so that its end need not be waited for."""

    def read(self, answer: bytes) -> Opinion:
        """What it says.  Raises ScanError for anything that is no answer with a finite score."""


class Scan(NamedTuple):
    """A request to a scanner at an address, to be answered until a moment (monotonic seconds)."""

    address: Address
    request: bytes
    dialect: Dialect
    until: float
