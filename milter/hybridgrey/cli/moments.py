"""Moments and durations as options take them: a span before now, or a time; how long."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import click

from hybridgrey.cleaning import clean
from hybridgrey.config import durations


def moment(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A duration before now (``2d``) or an ISO 8601 time, UTC unless it says another, as Unix seconds."""
    return _moment(value, _utc)


def local_moment(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """As `moment`, but a time is one of the local clock; and ``today``, ``yesterday``, or a time of today."""
    if not value:
        return None
    now = datetime.now().astimezone()
    words = {"now": now, "today": _midnight(now), "yesterday": _midnight(now - timedelta(days=1))}
    known = words.get(value.strip().lower())
    if known is not None:
        return known.timestamp()
    if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", value.strip()):
        value = f"{now:%Y-%m-%d}T{value.strip():0>{8 if value.count(':') == 2 else 5}}"
    return _moment(value, datetime.astimezone)


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC)


def _midnight(when: datetime) -> datetime:
    # By way of a time without a zone: that night the clock may have been another hour's.
    return datetime(when.year, when.month, when.day).astimezone()


def _moment(value: str | None, placed: Callable[[datetime], datetime]) -> float | None:
    """`placed` puts a time without a zone in one."""
    if not value:
        return None
    try:
        if not re.match(r"[0-9]{4}-", value):
            return max(0.0, time.time() - durations.parse(value))
        when = datetime.fromisoformat(value)
        return (when if when.tzinfo else placed(when)).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f'{clean(value)!r} is no time: write a duration such as "2d", or a time such as 2026-01-31T10:00'
        ) from None


def seconds(_ctx: click.Context, _parameter: click.Parameter, value: str) -> int:
    """A duration such as ``7d`` in whole seconds."""
    try:
        return int(durations.parse(value))
    except ValueError as error:
        raise click.BadParameter(f"{clean(value)!r} {error}") from None


def duration(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """A duration in whole seconds, at least one."""
    if value is None:
        return None
    long = seconds(ctx, parameter, value)
    if long < 1:
        raise click.BadParameter(f"{clean(value)!r} is less than a second")
    return long
