"""``hybridgrey correspondents`` as a process: shows and forgets what the filter has learnt."""

from __future__ import annotations

import json
import time

import pytest

from hybridgrey import envelope
from hybridgrey.filter.blocking import Blocking
from hybridgrey.hand.correspondents import COUNT, PREFIX, Correspondents
from hybridgrey.store.connection import Store
from parts.commandline import in_terminal, run
from parts.daemon import toml
from parts.redisserver import Redis

SECRET = "s" * 40
BOB, CAROL, DAVE = "bob@example.net", "carol@example.net", "dave+x@other.example"


@pytest.fixture(scope="module")
def server():
    with Redis() as part:
        yield part


@pytest.fixture
def world(server, tmp_path):
    """A function that makes a config of a store that has correspondents, with a secret or without."""

    def make(*addresses, secret=""):
        with server.client() as client:
            client.flushall()
        path = tmp_path / "hg.toml"
        path.write_text(toml({"store": {"url": server.unix_url, "key_secret": secret}}))
        by = Correspondents(Terms(), secret)
        ann, *boxes = (envelope.read(one) for one in ("ann@example.org", *addresses))
        assert Blocking(Store.open(server.unix_url, 5.0)).run(by.learn(ann, boxes)) == len(boxes)
        return path

    return make


class Terms:
    lifetime, max_recipients, max_daily = 600, 20, 5


def done(*words, status=0, **more):
    """A command that ends with this status."""
    result = run("correspondents", *words, **more)
    assert result.status == status, result
    return result


def listed(path, *words):
    return [json.loads(line) for line in done("-c", path, "--json", *words).lines]


def addresses(path, *words):
    return {one["address"] for one in listed(path, *words)}


SELECTED = {
    "all": ((), {BOB, CAROL, DAVE}),
    "everybody": (("*",), {BOB, CAROL, DAVE}),
    "one": ((BOB,), {BOB}),
    "in any case": (("BOB@Example.NET",), {BOB}),
    "with an extension": ((DAVE,), {DAVE}),
    "a domain": (("example.net",), {BOB, CAROL}),
    "a pattern": (("*o*@example.net",), {BOB, CAROL}),
    "and another": (("B?B@*",), {BOB}),
}


def test_who_is_named(world):
    """By address, domain or pattern; each with when it was written to and how long it is remembered."""
    path = world(BOB, CAROL, DAVE)
    for words, wanted in SELECTED.values():
        assert addresses(path, *words) == wanted, words
    (one,) = listed(path, BOB)
    assert one["wrote"] == pytest.approx(time.time(), abs=60)
    assert 540 < one["expires"] <= 600
    assert one["hidden"] is False
    shown = done("-c", path, BOB).lines
    assert shown[0].lower().split() == ["address", "written", "to", "forgotten", "in"]
    assert BOB in shown[-1]


@pytest.mark.parametrize("words", [("x@example.net",), ("ann@example.org",), ("example",), ("?@*",)])
def test_who_is_none(world, words):
    """Who only wrote himself is none; nor is what ends like a domain of theirs."""
    path = world(BOB)
    assert done("-c", path, *words, status=1).error == "hybridgrey: no such correspondent\n"
    assert done("-c", path, "--json", *words, status=1).output == ""
    assert done("-c", path, "--forget", *words, status=1).output == "forgot 0 correspondents\n"


@pytest.mark.parametrize("secret", ["", SECRET])
def test_forgotten(world, server, secret):
    """One at once, several with --yes or after a question; the day's counts and other keys stay."""
    path = world(BOB, CAROL, DAVE, secret=secret)
    with server.client() as client:
        client.set("hg1:{192.0.2.0/24}", 3)
    assert done("-c", path, "--forget", BOB).output == "forgot 1 correspondent\n"
    done("-c", path, BOB, status=1)
    assert "give --yes" in done("-c", path, "--forget", "*", status=1).error
    assert len(listed(path)) == 2
    assert done("-c", path, "--forget", "*", "--yes", "--json").output == '{"forgotten":2}\n'
    assert done("-c", path, status=1).error == "hybridgrey: there are no correspondents\n"
    with server.client() as client:
        left = sorted(client.keys())
    assert [key.startswith(COUNT) for key in left] == [True, False]


def test_hidden(world):
    """With a secret the list has HMACs and says so; an address is found, a pattern or a domain cannot be."""
    path = world(BOB, CAROL, secret=SECRET)
    shown = done("-c", path)
    assert "example.net" not in shown.output
    assert "cannot be shown" in shown.error
    assert [one["hidden"] for one in listed(path)] == [True, True]
    assert addresses(path, BOB) == {BOB}
    for words in (("example.net",), ("*@example.net",), ("--forget", "b*@example.net")):
        assert "are stored as HMACs" in done("-c", path, *words, status=2).error
    # Those of before there was a secret are what they are.
    path.write_text(path.read_text().replace(SECRET, ""))
    done("-c", path, BOB, status=1)


@pytest.mark.parametrize("words", [("--forget",), ("<a@b@c>",), ("@",), ("user@",)])
def test_what_cannot_be_meant(world, words):
    """Wrong usage, and nothing is forgotten."""
    path = world(BOB)
    done("-c", path, *words, status=2)
    assert addresses(path) == {BOB}


def test_what_others_have_written_there(world, server):
    """Keys and values of whatever kind are shown as text that steers no terminal."""
    path = world(BOB)
    with server.client() as client:
        client.set(PREFIX + b"\x1b[31mx\xff@example.org", "soon")
        client.lpush(PREFIX + b"list@example.org", 1)
    shown = in_terminal("correspondents", "-c", path, "example.org")
    assert shown.status == 0
    assert "\x1b[31m" not in shown.output
    assert {(one["wrote"], one["expires"]) for one in listed(path, "example.org")} == {(None, -1)}
