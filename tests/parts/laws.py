"""How many examples a law is tried on: all in `make test`, a quarter in `make unit` (see conftest)."""

from __future__ import annotations

from hypothesis import settings

_FULL = 100
"""hypothesis's own number, which the profile of `make unit` lowers."""


def examples(number: int) -> int:
    """For ``settings(max_examples=…)``: `number`, or the same part of it that the profile in use has."""
    return max(1, number * settings().max_examples // _FULL)
