"""What a judgement waits for, as values, so that whoever drives it can tell them apart.

* `Answers`: something that comes in on a look-up's exchange, or a moment; resumed with None.
* `OverTcp`: a question asked over TCP; resumed with a `Reply`, or None if no answer came in time.
* `Scan`: a message for the content scanner; resumed with the answer's bytes, or with a ScanError thrown in.
* `Call`: a script of the store; resumed with its list of integers, or with a StoreError thrown in.

A driver may resume sooner than something has come: what is still missing is awaited again.  One that gives up
in between (the MTA has gone) closes the generator.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

from hybridgrey.content.question import Scan
from hybridgrey.lists.awaited import Answers, OverTcp
from hybridgrey.store.connection import Call

__all__ = ["Answers", "Awaited", "Call", "OverTcp", "Scan", "Steps"]

T = TypeVar("T")
Awaited: TypeAlias = Answers | OverTcp | Scan | Call
# With what it is resumed depends on what it has yielded.
Steps: TypeAlias = Generator[Awaited, Any, T]
