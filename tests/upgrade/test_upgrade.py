"""Upgrade and roll-back: one store, one configuration and several hosts, with the version before this one.

What that version writes is kept in `upgrade/`, made by `upgrade/record.py`; where the history of the
repository is at hand that version itself runs as well.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hybridgrey.config import load
from hybridgrey.greylist.triplets import Note, State, parse_key, parse_note
from hybridgrey.store.connection import Store
from parts import commandline, previous
from parts.base import Part, wait_until
from parts.daemon import Daemon
from parts.milterpeer import MilterPeer
from parts.previous import PreviousDaemon
from parts.redisserver import Redis
from upgrade.record import ATTEMPTS, SECRET, record, under

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "upgrade"
ENTRIES = HERE / f"entries-{previous.COMMIT[:7]}.json"
SAMPLE = HERE / f"hybridgrey-{previous.COMMIT[:7]}.toml"
PATIENCE = 30.0
needs_previous = pytest.mark.skipif(bool(previous.missing()), reason=previous.missing() or "at hand")
RULES: list[dict[str, object]] = [{"name": "the rest", "action": "greylist"}]


def settings(url: str, **greylist: object) -> dict[str, Any]:
    """A configuration that both versions know."""
    return {"store": {"url": url}, "greylist": {"delay": "1s", **greylist}, "rule": RULES}


def recorded() -> list[dict[str, Any]]:
    """What the previous version wrote."""
    entries: list[dict[str, Any]] = json.loads(ENTRIES.read_text())
    return entries


def restore(redis: Redis, age: int) -> None:
    """Put its entries into a store, their first attempts `age` seconds ago."""
    with redis.client() as client:
        now = int(client.time()[0])
        for entry in recorded():
            value = {"count": entry["value"], "waiting": now - age, "passed": age - now}[entry["kind"]]
            client.set(entry["key"], value, ex=entry["expires"])


def rcpt(daemon: Daemon, client: str, sender: str, recipient: str = "b@example.net") -> str:
    """The code, or the kind of the answer, that a client gets."""
    with MilterPeer(daemon.address, timeout=PATIENCE) as peer:
        peer.connect("unknown", client)
        peer.helo()
        peer.mail(f"<{sender}>")
        reply = peer.rcpt(f"<{recipient}>")
        peer.quit()
        return reply.code or reply.kind


def comes_back(daemon: Daemon, client: str, sender: str) -> None:
    """Come again until the delay is over."""
    wait_until(lambda: rcpt(daemon, client, sender) == "continue", "the mail passes", PATIENCE)


# The store: layout


def test_entries_are_written_as_before():
    """Same attempts, same keys, values, expiries as recorded: the version before can read what we write."""
    with Redis() as redis:
        assert record(redis.unix_url) == recorded()


def test_bounds_change_no_entry():
    """With bounds in force every entry is written as before; what keeps them has keys that are no entries."""
    bounds = {"auto_allow_interval": 3600, "max_waiting": 1000}
    with Redis() as redis:
        found = record(redis.unix_url, **bounds)
    notes = [entry for entry in found if parse_key(str(entry["key"]).encode()) is None]
    assert {parse_note(str(entry["key"]).encode())[1] for entry in notes} == set(Note)
    entries = [entry for entry in found if entry not in notes]
    # Both triplets of this network passed within the hour
    once = [entry | {"value": 1} if entry["value"] == 2 else entry for entry in recorded()]
    assert entries == once


@needs_previous
def test_recorded_entries_are_that_versions():
    """The recorded entries are what the version before writes, and nothing that was made up."""
    with Redis() as redis:
        command = [sys.executable, HERE / "record.py", redis.unix_url]
        done = subprocess.run(command, env=previous.environment(), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == recorded()


@pytest.mark.parametrize("secret", ["", SECRET])
def test_entries_of_the_previous_version_are_known(secret):
    """Each recorded triplet is what it was: passed ones are known, waiting ones go on waiting, then pass."""
    delay, age = 600, 100
    with Redis() as redis, contextlib.closing(Store.open(redis.unix_url, 5.0)) as store:
        restore(redis, age)
        greylist = under(store, secret, auto_allow_after=0)
        for client, sender, recipient, times in ATTEMPTS:
            touch = greylist.touch(client, sender, recipient, delay)
            wanted = State.KNOWN if times == 2 else State.EARLY
            assert (touch.state, age <= touch.age <= age + 30) == (wanted, True), sender
        for client, sender, recipient, times in ATTEMPTS:
            if times == 1:
                assert greylist.touch(client, sender, recipient, age - 50).state is State.PASSED
        allowing = under(store, secret, auto_allow_after=2)
        assert allowing.touch("203.0.113.9", "new@example.org", "c@example.net", delay).state is State.NETWORK


def test_commands_read_entries_of_the_previous_version(tmp_path):
    """`greylist list` shows the recorded entries, and forgets one."""
    with Redis() as redis:
        restore(redis, 100)
        path = tmp_path / "hybridgrey.toml"
        path.write_text(f'[store]\nurl = "{redis.unix_url}"\n[greylist]\nauto_allow_after = 2\n')
        done = commandline.run("greylist", "list", "--json", "-c", path)
        assert (done.status, done.error) == (0, "")
        assert len(shown(done)) == len(recorded())
        assert "passed@example.org" in done.output
        gone = commandline.run("greylist", "forget", "--yes", "--from", "passed@example.org", "-c", path)
        assert gone.status == 0
        assert "passed@example.org" not in commandline.run("greylist", "list", "--json", "-c", path).output


def test_entries_of_another_layout_are_left_alone():
    """Keys of a layout to come, hg2, are neither read nor changed: after a roll-back they are still there."""
    with Redis() as redis, redis.client() as client:
        theirs = {
            b"hg2:{192.0.2.0/24}": b"9",
            b"hg2:{192.0.2.0/24}:a@example.org:b@example.net": b"future",
            b"hg2:schema": b"2",
        }
        client.mset(theirs)
        with Daemon(settings(redis.url)) as daemon:
            assert rcpt(daemon, "192.0.2.1", "a@example.org") == "450"
            comes_back(daemon, "192.0.2.1", "a@example.org")
        assert dict(zip(theirs, client.mget(list(theirs)), strict=True)) == theirs
        assert all(client.ttl(key) == -1 for key in theirs)


@needs_previous
def test_entries_by_domain_are_strange_to_the_version_before_and_harm_nothing():
    """It lists them as networks of a strange name, forgets them, and goes on with its own triplets."""
    with Redis() as redis, contextlib.closing(Store.open(redis.unix_url, 5.0)) as store:
        greylist = under(store, "", auto_allow_after=3)
        triplet = "a@example.org", "b@example.net"
        network = greylist.touch("192.0.2.1", *triplet, 1)
        store.run(*greylist.attempt_by_domain("example.org", *triplet, 1, network))
        with PreviousDaemon(settings(redis.url, auto_allow_after=3)) as old:
            comes_back(old, "192.0.2.1", "a@example.org")
            assert rcpt(old, "198.51.100.1", "a@example.org") == "450"
            done = previous.run("greylist", "list", "--json", "-c", old.config)
            assert (done.status, "spf=example.org" in done.output) == (0, True), done.error
            gone = previous.run("greylist", "forget", "--yes", "--from", "a@example.org", "-c", old.config)
            assert gone.status == 0, gone.error
        with redis.client() as client:
            assert [key for key in client.scan_iter() if b"spf=" in key] == []


# The store: versions in turn, and side by side


@needs_previous
@pytest.mark.parametrize("way", ["upgrade", "roll-back"])
def test_embedded_store_goes_over(way):
    """A single host's store serves the other version after a restart: passed stays passed."""
    with contextlib.closing(Folder()) as folder:
        chosen = settings(f"embedded:{folder.directory}/store", auto_allow_after=0)
        before, after = (PreviousDaemon, Daemon) if way == "upgrade" else (Daemon, PreviousDaemon)
        with before(chosen) as first:
            assert rcpt(first, "192.0.2.1", "a@example.org") == "450"
            comes_back(first, "192.0.2.1", "a@example.org")
            assert rcpt(first, "198.51.100.1", "w@example.org") == "450"
            assert first.stop() == 0
        with after(chosen) as second:
            assert rcpt(second, "192.0.2.1", "a@example.org") == "continue"
            assert second.verdict("b@example.net")["state"] == "known"
            comes_back(second, "198.51.100.1", "w@example.org")
            assert [one["state"] for one in second.events("verdict")][-1] == "passed"
            assert rcpt(second, "203.0.113.1", "n@example.org") == "450"


class Folder(Part):
    """A folder with a short path, for the embedded store's socket."""


@contextlib.contextmanager
def two_hosts(redis: Redis, **bounds: object) -> Iterator[tuple[Daemon, Daemon]]:
    """The version before and this one, which has bounds, with one store."""
    chosen = settings(redis.url, auto_allow_after=3)
    with PreviousDaemon(chosen) as old, Daemon(settings(redis.url, auto_allow_after=3, **bounds)) as new:
        yield old, new


@needs_previous
def test_two_versions_side_by_side():
    """First attempt at one host, retry at the other, and the reverse; what is proved at both is allowed."""
    with Redis() as redis, two_hosts(redis, auto_allow_interval="0s") as (old, new):
        for client, first, second in (("192.0.2.1", old, new), ("198.51.100.1", new, old)):
            assert rcpt(first, client, "a@example.org") == "450"
            comes_back(second, client, "a@example.org")
            assert [rcpt(host, client, "a@example.org") for host in (old, new)] == ["continue"] * 2
        for host, sender in ((old, "1@a.example"), (new, "2@b.example"), (old, "3@c.example")):
            assert rcpt(host, "203.0.113.1", sender) == "450"
            comes_back(host, "203.0.113.1", sender)
        assert [rcpt(host, "203.0.113.9", "new@example.org") for host in (old, new)] == ["continue"] * 2
        assert listed(old) == listed(new)


@needs_previous
def test_bounds_beside_the_previous_version():
    """What keeps our bounds is none of the old host's: it reads our count, and ours grows once in an hour."""
    with Redis() as redis, two_hosts(redis, max_waiting=2) as (old, new):
        for sender in ("1@a.example", "2@b.example"):
            assert rcpt(new, "203.0.113.1", sender) == "450"
        kept = of_the_greylist(redis)
        assert rcpt(new, "203.0.113.1", "3@c.example") == "450"
        assert of_the_greylist(redis) == kept
        for sender in ("1@a.example", "2@b.example"):
            comes_back(new, "203.0.113.1", sender)
        assert counted(old) == counted(new) == 1
        assert rcpt(old, "203.0.113.1", "3@c.example") == "450"
        comes_back(old, "203.0.113.1", "3@c.example")
        assert counted(old) == counted(new) == 2
        assert listed(old) == listed(new)
        done = previous.run("greylist", "forget", "--all", "--yes", "-c", old.config)
        assert done.status == 0, done.error
        assert rcpt(new, "203.0.113.1", "1@a.example") == "450"


def of_the_greylist(redis: Redis) -> list[bytes]:
    """All keys but those of the history and the probe."""
    return list(filter(re.compile(rb"hg1:\{").match, redis.keys()))


def counted(daemon: Daemon) -> int:
    """What a version's own `greylist list` says of the one network there is."""
    run = previous.run if isinstance(daemon, PreviousDaemon) else commandline.run
    (one,) = (one for one in shown(run("greylist", "list", "--json", "-c", daemon.config)) if "passed" in one)
    return int(one["passed"])


def shown(done: commandline.Done) -> list[dict[str, Any]]:
    """The entries of `greylist list --json`."""
    return [json.loads(line) for line in done.lines]


def listed(daemon: Daemon) -> list[str]:
    """What a version's own `greylist list` shows."""
    run = previous.run if isinstance(daemon, PreviousDaemon) else commandline.run
    done = run("greylist", "list", "--json", "-c", daemon.config)
    assert done.status == 0, done.error
    return sorted(f"{one['network']} {one.get('sender')} {one.get('recipient')}" for one in shown(done))


@needs_previous
def test_two_versions_under_load():
    """Clients that try at both hosts in turn: each triplet is delayed once, and never after it has passed."""
    failures: list[str] = []

    def client(number: int, hosts: tuple[Daemon, Daemon]) -> None:
        passed: dict[str, bool] = {}
        began = time.monotonic()
        for turn in count():
            # Longer than the delay, however quick both are.
            if turn >= 60 and time.monotonic() > began + 3:
                break
            sender = f"{'abcdefghij'[turn % 10]}@{'xyz'[number]}.example"
            answer = rcpt(hosts[turn % 2], f"198.18.{number}.1", sender)
            if answer not in ("450", "continue") or (passed.get(sender) and answer != "continue"):
                failures.append(f"{sender}: {answer}")
            passed[sender] = passed.get(sender, False) or answer == "continue"
        if not any(passed.values()):
            failures.append("nothing has passed")

    with Redis() as redis:
        chosen = settings(redis.url, auto_allow_after=0)
        with PreviousDaemon(chosen) as old, Daemon(chosen) as new:
            work = [threading.Thread(target=client, args=(number, (old, new))) for number in range(3)]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join(2 * PATIENCE)
    assert failures == []


# The configuration


def test_configuration_of_the_previous_version_loads(tmp_path):
    """Its commented sample, every key of it, is good, without a warning, and means what it meant.

    What rules it has are all its rules; keys that are new have their defaults.
    """
    path = tmp_path / "hybridgrey.toml"
    path.write_text(SAMPLE.read_text())
    loaded = load.load(path)
    assert loaded.warnings == ()
    of_the_file = {"path", "files", "warnings", "sources", "rules", "shown"}
    for name in set(load.Config.model_fields) - of_the_file:
        assert getattr(loaded, name) == getattr(load.default(), name), name
    kind = {"allowed by hand", "blocked by hand", "correspondents", "pools"}
    assert loaded.rules == tuple(
        replace(rule, learn=False) for rule in load.default().rules if rule.name not in kind
    )
    done = commandline.run("check-config", "-c", path)
    assert (done.status, done.error) == (0, "")


def keys_of(text: str) -> set[str]:
    """The keys of a config file, `section.key`, rules and zones apart."""
    found = set()
    for key, value in tomllib.loads(text).items():
        if isinstance(value, dict) and key != "zones":
            found |= {f"{key}.{inner}" for inner in value}
        elif key != "rule":
            found.add(key)
    return found


def test_no_key_is_lost():
    """A key of the version before is one of ours: who upgrades need not touch the configuration."""
    ours = keys_of((ROOT / "etc" / "hybridgrey.toml").read_text())
    assert keys_of(SAMPLE.read_text()) <= ours


@needs_previous
def test_roll_back_with_a_new_configuration_names_each_new_key(tmp_path):
    """The version before refuses what it does not know, and says which keys: all of them, and no others."""
    path = tmp_path / "hybridgrey.toml"
    path.write_text((ROOT / "etc" / "hybridgrey.toml").read_text())
    (tmp_path / "allow_clients").write_text("")
    ours, theirs = tomllib.loads(path.read_text()), tomllib.loads(SAMPLE.read_text())
    new = keys_of(path.read_text()) - keys_of(SAMPLE.read_text())
    # A section that is new is named as a whole.
    new = {key if key.partition(".")[0] in theirs else key.partition(".")[0] for key in new}
    known = {key for rule in theirs["rule"] for key in rule} | {"clients"}
    of_rules = {f"{key}: unknown key" for rule in ours["rule"] for key in rule if key not in known}
    count = sum(key not in known for rule in ours["rule"] for key in rule)
    done = previous.run("check-config", "-c", path)
    wanted = {f"{key}: unknown key" for key in new} | of_rules
    assert {text for text in wanted if text in done.error} == wanted, done.error
    assert (done.status, len(done.error.splitlines())) == (78, len(new) + count), done.error
