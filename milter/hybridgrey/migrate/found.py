"""What is found in another program's configuration: rules for ours, and notes on what has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Found:
    """A rule (`table`, in the notation of the config file), or what was not taken over.

    `origin` is the parameter and its words, `line` its line (0: on none, a default of Postfix); more lines of
    origin follow as ``line<TAB>words``.  `notes` go above the rule, or say why there is none; with `off` the
    rule is printed as a comment.
    """

    line: int
    origin: str
    table: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    off: bool = False

    @property
    def lost(self) -> bool:
        """Whether no rule stands for it."""
        return self.off or not self.table


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be read, and why."""

    reason: str


Read = Callable[[str], "str | Unreadable"]
"""Gives the text of a file that the configuration names."""
