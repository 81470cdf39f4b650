"""Letters of the tests: who writes to whom, from where, and what an MX host says to it."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from parts.fieldservers import DOMAIN
from parts.mxrow import Row

GREY = re.compile(r"450 4\.2\.0 (?:<[^>]*>\.\.\. )?Greylisted, please try again in (\d+) seconds?")
"""Sendmail puts the recipient before a milter's text."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Letter:
    """One message on its way; `address` is the client's, its network's tenth if empty."""

    network: str
    sender: str
    recipient: str
    address: str = ""
    version: int = 4

    def by(self, row: Row, mx: str) -> str:
        """Take it to an MX host; the last answer."""
        return row.send(self.network, mx, self.sender, self.recipient, self.address, version=self.version)

    def coming_from(self, address: str) -> Letter:
        """The same from another address."""
        return replace(self, address=address)


def letter(
    network: str = "office", *, sender: str | None = None, address: str = "", version: int = 4
) -> Letter:
    """One that nobody has seen: each has a recipient of its own."""
    number = next(_numbers)
    sender = f"joe@{network}.test" if sender is None else sender
    return Letter(network, sender, f"person{number}@{DOMAIN}", address, version)


def greylisted(answer: str) -> int:
    """The seconds that a client was told to wait; fails when it was told anything else."""
    found = GREY.fullmatch(answer)
    assert found, answer
    return int(found[1])


def wait_out(answers: Iterable[str]) -> None:
    """Wait as long as the clients were told to."""
    time.sleep(max(greylisted(answer) for answer in answers) + 0.1)


def introduce(row: Row, letters: Iterable[Letter], mx: str = "mx1") -> None:
    """Let letters pass the greylist, so that they are known."""
    known = list(letters)
    wait_out([one.by(row, mx) for one in known])
    for one in known:
        answer = one.by(row, mx)
        assert answer.startswith("250"), answer
