"""Host names with ``*``, such as ``mail*.example.com``: read them, and match all of them at once.

A ``*`` is any text within one label, none too, so ``mail*.example.com`` is ``mail.example.com`` and
``mail-in-7.example.com`` but not ``mail.eu.example.com``.  A label that is only ``*`` is any one label; it
does not stand first, where ``.example.com`` says it.  The last two labels are fixed: of ``mail*.com`` anybody
could register one.

Entries lie by the fixed labels at their end, and below these by the text before the first ``*``, so the cost
of a client does not grow with their number.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MOST: Final = 2  # stars in a label: what a name costs grows with its length to this power
FIXED: Final = 2

_LABEL: Final = re.compile(r"[\w*](?:[\w*-]{0,61}[\w*])?", re.ASCII)


class WildcardError(ValueError):
    """A name with ``*`` that cannot be read; the text says why."""


def parse(name: str) -> str:
    """A name with ``*`` in lower case; raises WildcardError."""
    labels = name.lower().removesuffix(".").split(".")
    shown = repr(name[:80])
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise WildcardError(f"{shown} is no host name with *")
    if labels[0] == "*":
        raise WildcardError(f'{shown}: for every name below a domain write ".{".".join(labels[1:])[:80]}"')
    if len(labels) <= FIXED or any("*" in label for label in labels[-FIXED:]):
        raise WildcardError(f"{shown}: no * in the last two labels, for anybody could register such a domain")
    if any(label.count("*") > MOST for label in labels):
        raise WildcardError(f"{shown} has more than {MOST} * in a label")
    return ".".join(labels)


class Wildcards:
    """The names with ``*`` of all rules, each with the mask of the rules it belongs to."""

    def __init__(self) -> None:
        self._ends: dict[str, dict[str, dict[re.Pattern[str], int]]] = {}
        self._longest: dict[str, int] = {}  # text before a first star, by end

    def __bool__(self) -> bool:
        return bool(self._ends)

    def add(self, name: str, rule: int) -> None:
        """Add a name that `parse` gave."""
        labels = name.split(".")
        fixed = next(n for n, label in enumerate(reversed(labels)) if "*" in label)
        head, end = labels[: len(labels) - fixed], labels[len(labels) - fixed :]
        # Each label with its dot is an atomic group: what a label matched is never tried in another way, so
        # a hostile name costs the sum of its labels and not their product.
        pattern = re.compile("".join(f"(?>{_label(label)}\\.)" for label in head))
        suffix, prefix = f".{'.'.join(end)}", name.partition("*")[0]
        self._longest[suffix] = max(self._longest.get(suffix, 0), len(prefix))
        of_prefix = self._ends.setdefault(suffix, {}).setdefault(prefix, {})
        of_prefix[pattern] = of_prefix.get(pattern, 0) | 1 << rule

    def find(self, parents: Sequence[str]) -> int:
        """The rules with an entry for a name; `parents`: it, then ``.domain`` for each domain above it."""
        found = 0
        for end in parents[1:]:
            if end not in self._ends:
                continue
            of_end = self._ends[end]
            head = f"{parents[0][: -len(end)]}."
            for length in range(min(len(head), self._longest[end]) + 1):
                for pattern, mask in of_end.get(head[:length], {}).items():
                    if pattern.fullmatch(head):
                        found |= mask
        return found


def _label(label: str) -> str:
    return "[^.]+" if label == "*" else "[^.]*".join(re.escape(part) for part in label.split("*"))
