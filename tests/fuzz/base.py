"""What a target is, and what its promise is told with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
CLIENT = bytes((192, 0, 2, 1))
HERE = "mx.test"


@dataclass(frozen=True, slots=True)
class Target:
    """One promise, and inputs near which it may break; `share`: its part of all inputs, by its cost."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = field(default=())
    share: int = 10


def text_of(data: bytes) -> str:
    """Text as it comes from files and the wire; bytes that are no UTF-8 become surrogates."""
    return data.decode("utf-8", "surrogateescape")


def typed_of(data: bytes) -> str:
    """Text as it comes from a file of ours, which is UTF-8."""
    return data.decode("utf-8", "replace")


def one_line(text: str) -> None:
    """Fail unless a text is fit for a terminal and a log."""
    assert text.isprintable(), text
