"""Verdicts as they are recorded, and `hybridgrey log` on them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from parts.commandline import run

NOW = time.time()
REJECTED = {
    "client": "192.0.2.1",
    "host": "mail.spam.example",
    "helo": "x",
    "sender": "a@spam.example",
    "recipient": "Joe@example.net",
    "rule": "blocklists",
    "action": "reject",
    "outcome": "rejected",
    "reason": "list",
    "lists": {"zen.spamhaus.org": ["127.0.0.4", "127.0.0.11"]},
    "state": None,
    "age": None,
    "enforced": True,
}
NEW = REJECTED | {
    "client": "2001:db8::7",
    "host": None,
    "sender": "<>",
    "rule": "the rest",
    "action": "greylist",
    "outcome": "greylisted",
    "reason": "new",
    "lists": {},
    "state": "new",
    "age": 0,
}
PASSED = NEW | {
    "outcome": "accepted",
    "reason": "passed",
    "state": "passed",
    "age": 312,
    "sender": "b@ok.example",
}


def log(path, *words, **more):
    return run("log", "-c", path, "--utc", *words, environment={"TZ": "Europe/Berlin"}, **more)


def stamp(moment):
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
