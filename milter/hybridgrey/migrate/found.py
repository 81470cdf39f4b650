"""What is found in another program's configuration: rules for ours, and notes on what has none.

A *restriction* here is whatever decides of mail in that configuration: `Summary` counts those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Found:
    """A rule (`table`, in the notation of the config file), or what was not taken over.

    `origin` is the parameter and its words, `line` its line (0: on none, a default of Postfix); more lines of
    origin follow as ``line<TAB>words``.  `notes` go above the rule, or say why there is none; with `off` the
    rule is printed as a comment.  `aside` is a note on something that decides nothing of its own.  With
    `zone` the table is not a rule but what is particular to that list.
    """

    line: int
    origin: str
    table: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    off: bool = False
    aside: bool = False
    zone: str = ""

    @property
    def is_rule(self) -> bool:
        """Whether it is a rule that is in effect."""
        return not self.lost and not self.zone

    @property
    def lost(self) -> bool:
        """Whether no rule stands for it."""
        return self.off or not self.table


@dataclass(frozen=True, slots=True)
class Summary:
    """How much was taken over: restrictions, the rules that stand for them, and what is lost."""

    taken: int
    rules: int
    lost: int

    @classmethod
    def of(cls, found: Sequence[Found]) -> Summary:
        """The numbers; what is found in two places is counted twice, what is said twice of one place once."""
        rules = [f for f in found if f.is_rule]
        lost = {(f.line, f.origin) for f in found if f.lost and not f.aside}
        return cls(sum(1 + f.origin.count("\n") for f in rules), len(rules), len(lost))

    def __str__(self) -> str:
        """In words."""
        taken = f"{self.taken} restriction{'s' * (self.taken != 1)} taken over"
        rules = f"{self.rules} rule{'s' * (self.rules != 1)}"
        return f"{taken} in {rules}, {self.lost} not"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not be read, and why."""

    reason: str


Read = Callable[[str], "str | Unreadable"]
"""Gives the text of a file that the configuration names."""
