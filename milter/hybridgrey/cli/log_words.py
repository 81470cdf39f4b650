"""A verdict in words, on one line: when, by which host, what the client got, who wrote to whom, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from hybridgrey import outcome
from hybridgrey.outcome import Outcome, Reason, outcome_of
from hybridgrey.page.verdicts import Verdict

COLOURS: Final = {
    Outcome.ACCEPTED: "green",
    Outcome.REJECTED: "red",
    Outcome.GREYLISTED: "yellow",
    Outcome.DEFERRED: "yellow",
}
_WIDTH: Final = max(map(len, Outcome))


def when(moment: float, *, utc: bool = False, precise: bool = True) -> str:
    """A moment by the local clock with its distance from UTC, or in UTC; ``--since`` reads it back.

    What somebody else has written may be beyond all calendars.
    """
    try:
        at = datetime.fromtimestamp(moment, UTC)
        shown = (at if utc else at.astimezone()).isoformat(" ", "seconds" if precise else "minutes")
    except (ValueError, OverflowError, OSError):
        return f"second {moment:.0f}"
    return shown.removesuffix("+00:00") + "Z" if utc else shown


def line(one: Verdict, *, utc: bool = False) -> str:
    """The line of a verdict that `page.verdicts.safe` has made."""
    got = outcome_of(one["outcome"]) or Outcome.ACCEPTED
    client = f"{one['client']} ({one['host']})" if one["host"] else one["client"]
    words = [
        when(one["t"], utc=utc),
        one["mx"] or "-",
        click.style(f"{got:<{_WIDTH}}", fg=COLOURS[got]),
        client,
        f"from {one['sender'] or '<>'} to {one['recipient'] or '?'}: {why(one)}",
    ]
    return " ".join(words)


def why(one: Verdict) -> str:
    """Why the client got what it got: the reason, the lists that have it, the rule, and what went wrong."""
    parts = [_reason(one), f'rule "{one["rule"]}"' if one["rule"] else ""]
    failed = [f"{label}: {said}" for label, said in one["lists"].items() if isinstance(said, str)]
    text = ", ".join(filter(None, parts))
    if failed:
        text += f"; no answer from {', '.join(failed)}"
    return text if one["enforced"] else f"{text}; only observed, so it was let in"


def _reason(one: Verdict) -> str:
    reason = one["reason"] or _older(one)
    listed = [(label, said) for label, said in one["lists"].items() if not isinstance(said, str)]
    if reason == Reason.LIST and listed:
        return "on " + " and ".join(
            f"{label} ({', '.join(said)})" if said else label for label, said in listed
        )
    if reason == Reason.EARLY and one["age"] is not None:
        return f"came back too early, after {one['age']:g} s"
    return outcome.why(reason, one["age"])


def _older(one: Verdict) -> str:
    """The reason in a record of version 0.1, which has none; states are reasons."""
    if one["state"]:
        return str(one["state"])
    if any(not isinstance(said, str) for said in one["lists"].values()):
        return Reason.LIST
    return Reason.RULE if one["rule"] else Reason.NO_RULE


def document(one: Verdict) -> dict[str, Any]:
    """A verdict for programs: the event of the log, for what reads that, with `why` in words."""
    at = datetime.fromtimestamp(one["t"], UTC)
    rest = {key: value for key, value in one.items() if key not in ("t", "outcome", "why")}
    return {
        "ts": at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
        "event": "verdict",
        **rest,
        "outcome": outcome_of(one["outcome"]),
        "why": why(one),
    }
