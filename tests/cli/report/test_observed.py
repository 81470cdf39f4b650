"""``hybridgrey report observed`` from the store."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hybridgrey.history.records import Batch
from hybridgrey.history.writer import Writer
from hybridgrey.report.bins import DAY, HOUR
from hybridgrey.store.connection import Store
from parts.commandline import in_terminal, run


def observed(world, *words, **options):
    """The finished `report observed`."""
    return run("report", "-c", world.config, "observed", *words, **options)


def test_observed_from_the_store(world):
    """Without a log the store's counts are summed up, of all hosts, with networks and domains."""
    counts = {
        "outcome:accept:observed": 5,
        "outcome:reject:observed": 3,
        "outcome:delay:enforced": 2,
        "outcome:tempfail:enforced": 1,
        "rule:blocklists:reject": 3,
        "rule:the rest:delay": 2,
        "rule:a%3Ab:accept": 5,
        "rule:trial:noted": 4,
        "list:zen.spamhaus.org:listed": 3,
        "list:zen.spamhaus.org:timeout": 1,
        "list:zen.spamhaus.org:error": 1,
        "claimed_by_both": 2,
        "outcome:strange:observed": 9,
        "rule:x": 9,
    }
    moment = world.now - 2 * HOUR
    world.write((moment, series, number) for series, number in counts.items())
    world.write([(moment, "outcome:accept:observed", 10)], host="mx2.example.org")
    world.write([(moment - 30 * DAY, "outcome:accept:observed", 100)])
    store = Store.open(world.redis.unix_url, 5.0)
    day = f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
    tops = {(day, "network/reject"): {"192.0.2.0/24": 3}, (day, "domain/delay"): {"example.org": 2}}
    Writer(store, "mx1.example.org", "tops").write(1, Batch(tops=tops), world.now)
    store.close()
    document = json.loads(observed(world, "--json", "--since", "1d").output)
    assert (document["source"], document["verdicts"], document["enforced"]) == ("history", 21, 3)
    assert document["outcomes"] == {"rejected": 3, "greylisted": 2, "deferred": 1, "accepted": 15}
    assert document["rules"] == {
        "blocklists": {"rejected": 3},
        "the rest": {"greylisted": 2},
        "a:b": {"accepted": 5},
    }
    assert document["noted"] == {"trial": 4}
    assert document["first"] < document["last"]
    assert document["lists"] == {"zen.spamhaus.org": {"listed": 3, "errors": 2}}
    assert document["claimed_by_both"] == {"count": 2, "samples": []}
    assert (document["clients"], document["senders"]) == (
        {"rejected": {"192.0.2.0/24": 3}},
        {"greylisted": {"example.org": 2}},
    )
    assert json.loads(observed(world, "--json").output)["verdicts"] == 121
    lines = [" ".join(line.split()) for line in observed(world, "--since", "1d").output.splitlines()]
    assert "as the store's history has it" in lines[0]
    assert "192.0.2.0/24 3" in lines
    assert "Top sender domains: greylisted" in lines


def test_observed_prefers_a_log(world):
    """What comes through a pipe is read; an empty pipe and a terminal leave the store's history."""
    world.write([(world.now - HOUR, "outcome:accept:observed", 10)])
    event = {"event": "verdict", "ts": "2026-01-31T10:00:00.000Z", "action": "accept"}
    document = json.loads(observed(world, "--json", text=json.dumps(event)).output)
    assert (document["source"], document["verdicts"]) == ("log", 1)
    assert json.loads(observed(world, "--json", text="").output)["verdicts"] == 10
    assert observed(world, "-", text="").status == 1
    done = in_terminal("report", "-c", world.config, "observed")
    assert done.status == 0
    assert "as the store's history has it" in done.plain


def test_observed_without_anything(world):
    """An empty store and one that is down are one line each, with their status."""
    done = observed(world)
    assert (done.status, len(done.error.splitlines())) == (1, 1)
    assert "no verdict is in the store's history" in done.error
    world.config.write_text('[store]\nurl = "redis://127.0.0.1:9/0"\n')
    done = observed(world)
    assert (done.status, len(done.error.splitlines())) == (69, 1)
