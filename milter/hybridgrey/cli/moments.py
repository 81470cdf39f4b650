"""Moments and durations as options take them: a span before now, or a time; how long."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

from hybridgrey.cleaning import clean
from hybridgrey.config import durations


def moment(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A duration before now (``2d``) or an ISO 8601 time, as Unix seconds."""
    if not value:
        return None
    try:
        if not re.match(r"[0-9]{4}-", value):
            return max(0.0, time.time() - durations.parse(value))
        when = datetime.fromisoformat(value)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f'{clean(value)!r} is no time: write a duration such as "2d", or a time such as 2026-01-31T10:00'
        ) from None


def duration(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """A duration such as ``7d`` in whole seconds, at least one."""
    if value is None:
        return None
    try:
        seconds = int(durations.parse(value))
    except ValueError as error:
        raise click.BadParameter(f"{clean(value)!r} {error}") from None
    if seconds < 1:
        raise click.BadParameter(f"{clean(value)!r} is less than a second")
    return seconds
