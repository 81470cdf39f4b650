"""``hybridgrey log``: past verdicts in words, from the store, and from daemons."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import threading
import time
from calendar import timegm
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cli.logged import NEW, NOW, PASSED, REJECTED, log, stamp
from hybridgrey.cli import log_filters, log_words
from hybridgrey.clientaddress import ClientReader
from hybridgrey.history import chunks, layout
from hybridgrey.history.chunkwriter import ChunkWriter
from hybridgrey.history.layout import Step
from hybridgrey.history.records import Batch
from hybridgrey.history.writer import Writer
from hybridgrey.metrics.ring import packed
from hybridgrey.page import verdicts
from hybridgrey.store.connection import Store
from page.world import BOTH, TRUSTED, host, lists
from parts.base import LOOPBACK, free_port, wait_until
from parts.commandline import PROGRAM, _environment, run
from parts.daemon import Daemon
from parts.redisserver import Redis

WORDS = [
    (REJECTED, 'on zen.spamhaus.org (127.0.0.4, 127.0.0.11), rule "blocklists"'),
    (NEW, 'first attempt, rule "the rest"'),
    (NEW | {"reason": "early", "age": 42}, 'came back too early, after 42 s, rule "the rest"'),
    (PASSED, 'passed after 312 s, rule "the rest"'),
    (PASSED | {"reason": "known"}, 'has passed before, rule "the rest"'),
    (PASSED | {"reason": "network"}, 'its network passes as a whole, rule "the rest"'),
    (PASSED | {"reason": "store down", "state": None, "age": None}, 'store down, rule "the rest"'),
    (PASSED | {"reason": "no rule", "rule": None}, "no rule matched"),
    (PASSED | {"reason": "authenticated", "rule": "local"}, 'logged in, rule "local"'),
    (PASSED | {"reason": "allowed by hand", "rule": "manual"}, 'allowed by hand, rule "manual"'),
    (PASSED | {"reason": "a word of a later version"}, 'a word of a later version, rule "the rest"'),
    (
        REJECTED | {"enforced": False},
        'on zen.spamhaus.org (127.0.0.4, 127.0.0.11), rule "blocklists"; only observed, so it was let in',
    ),
    (
        NEW | {"lists": {"bl.test": "timeout"}},
        'first attempt, rule "the rest"; no answer from bl.test: timeout',
    ),
    # Of version 0.1, without reasons
    ({**REJECTED, "reason": None}, 'on zen.spamhaus.org (127.0.0.4, 127.0.0.11), rule "blocklists"'),
    ({**NEW, "reason": None}, 'first attempt, rule "the rest"'),
    ({**PASSED, "reason": None, "state": None}, 'the rule says so, rule "the rest"'),
]


@pytest.mark.parametrize(("event", "words"), WORDS)
def test_every_line_says_why(event, words):
    """In words, with the lists that have the client and the rule."""
    one = verdicts.safe(event | {"t": NOW})
    assert log_words.why(one) == words
    assert log_words.document(one)["why"] == words


FILTERS = [
    # option, value, whether REJECTED, NEW and PASSED match
    ("client", "192.0.2.1", "r"),
    ("client", "192.0.2.0/24", "r"),
    ("client", "2001:db8::/32", "np"),
    ("client", "2001:DB8:0::7", "np"),
    ("client", "mail.spam.example", "r"),
    ("client", "spam.example", "r"),
    ("client", ".spam.example", "r"),
    ("client", "am.example", ""),
    ("client", "192.0.*", "r"),
    ("client", "mail.*", "r"),
    ("from", "a@spam.example", "r"),
    ("from", "A@SPAM.example", "r"),
    ("from", "spam.example", "r"),
    ("from", "@spam.example", "r"),
    ("from", ".example", "rp"),
    ("from", "", "n"),
    ("from", "<>", "n"),
    ("from", "*@*.example", "rp"),
    ("from", "am.example", ""),
    ("to", "joe@example.net", "rnp"),
    ("to", "example.net", "rnp"),
    ("to", "j?e@*", "rnp"),
    ("to", "other@example.net", ""),
    ("host", "mx1", "rnp"),
    ("host", "mx*", "rnp"),
    ("host", "mx2", ""),
    ("outcome", "rejected", "r"),
    ("outcome", "accepted", "p"),
    ("rule", "the rest", "np"),
    ("rule", "block*", "r"),
    ("list", "zen.spamhaus.org", "r"),
    ("list", "*.spamhaus.org", "r"),
    ("list", "bl.test", ""),
]


@pytest.mark.parametrize(("name", "value", "wanted"), FILTERS)
def test_conditions(name, value, wanted):
    """Each finds what it says; what is passed over for want of a needle would not be found either."""
    given = {name: (value,)}
    tests = log_filters.made(given, ClientReader())
    events = {"r": REJECTED, "n": NEW, "p": PASSED}
    raw = [packed(event | {"t": NOW, "mx": "mx1"}) for event in events.values()]
    found = [
        log_filters.holds(tests, verdicts.safe(event | {"t": NOW, "mx": "mx1"})) for event in events.values()
    ]
    assert "".join(key for key, one in zip(events, found, strict=True) if one) == wanted
    (chunk,) = chunks.cut(raw)
    assert sum(1 for _ in chunks.unpacked(chunk, log_filters.needles(given))) >= len(wanted)


# -- the store


@pytest.fixture
def config(server, tmp_path):
    with server.client() as client:
        client.flushall()
    path = tmp_path / "hg.toml"
    path.write_text(f'[store]\nurl = "{server.unix_url}"\n')
    return path


def keep(server, name, *events):
    """Write verdicts of a host to the store."""
    with contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
        batch = Batch(counts={(Step.DAY, int(NOW) // 86400 * 86400): {"sessions": 1}})
        Writer(store, name, f"{name}{len(events)}").write(1, batch, NOW)
        made = chunks.cut([packed(event | {"mx": name}) for event in events])
        while made:
            made = made[ChunkWriter(store, name, 3650 * 86400).write(made, NOW)[0] :]


def test_two_hosts(server, config):
    """All hosts by time, the newest last; filtered; the last few; as JSON that can be read again."""
    keep(server, "mx1", REJECTED | {"t": NOW - 7200.5}, PASSED | {"t": NOW - 60})
    keep(server, "mx2", NEW | {"t": NOW - 372})
    done = log(config)
    assert (done.status, done.error) == (0, "")
    assert done.lines == [
        f"{stamp(NOW - 7200.5)} mx1 rejected   192.0.2.1 (mail.spam.example) from a@spam.example to "
        'Joe@example.net: on zen.spamhaus.org (127.0.0.4, 127.0.0.11), rule "blocklists"',
        f"{stamp(NOW - 372)} mx2 greylisted 2001:db8::7 from <> to Joe@example.net: "
        'first attempt, rule "the rest"',
        f"{stamp(NOW - 60)} mx1 accepted   2001:db8::7 from b@ok.example to Joe@example.net: "
        'passed after 312 s, rule "the rest"',
    ]
    assert log(config, "--since", stamp(NOW - 3600)).lines == done.lines[1:]
    assert log(config, "--until", stamp(NOW - 300)).lines == done.lines[:2]
    assert log(config, "-n", "2").lines == done.lines[1:]
    assert log(config, "--host", "mx2").lines == done.lines[1:2]
    assert log(config, "--to", "joe@example.net", "--outcome", "accepted", "--outcome", "rejected").lines == [
        done.lines[0],
        done.lines[2],
    ]
    printed = log(config, "--json").output
    assert [json.loads(line)["outcome"] for line in printed.splitlines()] == [
        "rejected",
        "greylisted",
        "accepted",
    ]
    assert log(config, "-", text=printed).lines == done.lines
    assert "3 verdicts of a log among them" in run("replay", "-c", config, "-", text=printed).output


def test_local_times(server, config):
    """Times are those of the local clock, with its distance from UTC, and are read back as they are shown."""
    moment = timegm((2026, 1, 31, 11, 30, 5))
    keep(server, "mx1", REJECTED | {"t": moment})
    berlin = {"TZ": "Europe/Berlin"}
    line = run("log", "-c", config, environment=berlin).output
    assert line.startswith("2026-01-31 12:30:05+01:00 mx1 ")
    for since, found in (
        (line[:25], True),
        ("2026-01-31T12:30:05", True),
        ("2026-01-31 12:30:06", False),
        ("2026-01-31T11:30:06Z", False),
        ("2026-01-31", True),
        ("yesterday", False),
        ("0:00", False),
        ("today", False),
        ("9000d", True),
    ):
        assert (run("log", "-c", config, "--since", since, environment=berlin).status == 0) is found, since
    assert run("log", "-c", config, "--since", "25:00").status == 2
    assert run("log", "-c", config, "--since", "soon").status == 2


def test_nothing_matches(server, config):
    """It says so, and what there is."""
    assert "the store has no verdict yet" in log(config).error
    keep(server, "mx1", REJECTED | {"t": NOW - 7200}, NEW | {"t": NOW})
    done = log(config, "--outcome", "deferred")
    assert (done.status, done.output) == (1, "")
    assert re.fullmatch(
        r"hybridgrey: no verdict matches; the store has: mx1 2 since \d{4}-\d\d-\d\d \d\d:\d\d[+]\d\d:\d\d\n",
        done.error,
    )


def test_hostile_records(server, config):
    """Whatever is in the store, the terminal gets no control character and the command no error."""
    keep(
        server,
        "mx1",
        {"t": NOW, "client": "\x1b[31m\n\u202e", "sender": 5, "lists": {"\x07": ["\x1b"], "x": {"y": []}}},
        {"t": NOW, "client": ["x"], "outcome": {}},
        REJECTED | {"t": NOW, "age": "old", "enforced": "no", "outcome": "loved", "state": 7},
    )
    with server.client() as client:
        far = b"1 1 999999999998 999999999999 "
        client.zadd(
            layout.verdict_keys("mx1")[0], {b"junk": NOW, b"1 1 0 1 ": NOW, far: 4, b"\xff" * 9000: 5}
        )
    done = log(config)
    assert (done.status, done.error) == (0, "")
    assert len(done.lines) == 2
    assert all(line.isprintable() for line in done.lines)
    assert all(json.loads(line) for line in log(config, "--json").lines)
    done = log(config, "--to", "nobody@example.net")
    assert (done.status, done.error.count("\n")) == (1, 1)
    assert "mx1 3 since second 999999999998" in done.error


FACTS = {"spf": "pass", "proved": True, "correspondent": False, "pools": ["_spf.x.test"], "noted": ["later"]}
SCANNED = {"score": 1.5, "scan_ms": 12.5, "scan_error": None}


def test_what_was_found_out_can_be_replayed(server, config):
    """JSON has what the daemon's log has: SPF, pools, correspondents, the score; nothing that is none."""
    keep(server, "mx1", REJECTED | FACTS | SCANNED | {"t": NOW})
    (line,) = log(config, "--json").lines
    assert (FACTS | SCANNED).items() <= json.loads(line).items()
    bad = {"spf": ["x"], "proved": 1, "correspondent": None, "pools": ["\x1b", 5], "noted": "x"}
    found = verdicts.safe(REJECTED | bad | {"t": NOW})
    assert len(found["pools"]) == 1
    assert found["pools"][0].isprintable()
    assert not {"spf", "proved", "correspondent", "noted"} & found.keys()


def test_the_store_down(server, config):
    """One line: what is down, and where else verdicts are."""
    config.write_text(f'[store]\nurl = "redis://127.0.0.1:{free_port()}"\n')
    done = log(config)
    assert (done.status, done.output, done.error.count("\n")) == (69, "", 1)
    assert "name log files, or read this host's journal with --journal" in done.error


OFF = [
    (
        '[metrics]\nkeep_verdicts = "0"\nlisten = ""\n',
        '[metrics] keep_verdicts is "0", and [metrics] listen is ""',
    ),
    ('[metrics]\nhistory = false\nlisten = ""\n', '[metrics] history is off, and [metrics] listen is ""'),
    (
        '[metrics]\nlisten = ""\n[store]\nkey_secret = "k"\n',
        "with [store] key_secret no verdict is in the store",
    ),
    ('[metrics]\nkeep_verdicts = "0"\nlisten = "127.0.0.1:PORT"\n', "does not tell: Connection refused"),
]


@pytest.mark.parametrize(("text", "said"), OFF)
def test_nothing_is_kept(tmp_path, text, said):
    """Which key says so, and what else there is."""
    path = tmp_path / "hg.toml"
    path.write_text(text.replace("PORT", str(free_port())))
    done = log(path)
    assert (done.status, done.output) == (69, "")
    assert said in done.error
    assert "--journal" in done.error


def test_daemons_of_two_hosts():
    """What two daemons judge is there within 15 s, from both; what comes is followed."""
    with (
        lists() as dns,
        Redis() as redis,
        host(redis, dns, "mx1.test") as one,
        host(redis, dns, "mx2.test") as two,
    ):
        one.send(BOTH, "reject", 2)
        two.send(TRUSTED, "accept")
        judged = time.monotonic()
        wait_until(lambda: len(run("log", "-c", one.daemon.config).lines) == 3, "all are there")
        assert time.monotonic() - judged < 20
        assert {line.split()[2] for line in run("log", "-c", two.daemon.config).lines} == {
            "mx1.test",
            "mx2.test",
        }
        words = [PROGRAM, "log", "-f", "-c", two.daemon.config]
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=_environment({})) as follower:
            seen = b""
            two.send(BOTH, "reject")
            end = time.monotonic() + 40
            while seen.count(b"\n") < 4 and time.monotonic() < end:
                if select.select([follower.stdout], [], [], 1)[0]:
                    seen += os.read(follower.stdout.fileno(), 65536)
            follower.terminate()
        assert seen.count(b"\n") == 4


@pytest.mark.parametrize("extra", [{"store": {"key_secret": "k" * 20}}, {"metrics": {"keep_verdicts": "0"}}])
def test_the_daemon_is_asked(extra):
    """Where the store has none, those of this host's daemon are shown, and nothing is in the store."""
    with lists() as dns, Redis() as redis:
        settings = {
            "hostname": "mx1.test",
            "store": {"url": redis.unix_url, **extra.get("store", {})},
            "dns": {"nameservers": [dns.address]},
            "metrics": {
                "listen": f"{LOOPBACK}:{free_port()}",
                "password": "correct horse",
                **extra.get("metrics", {}),
            },
            "pid_file": "hg.pid",
            "rule": [
                {"name": "blocked", "dns": ["bl.test"], "action": "reject"},
                {"name": "rest", "action": "greylist"},
            ],
        }
        with Daemon(settings) as daemon:
            from page.world import Host

            Host("mx1.test", daemon, "").send(BOTH, "reject", 2)
            wait_until(lambda: len(log(daemon.config).lines) == 2, "the daemon tells")
            done = log(daemon.config, "--client", BOTH)
            assert re.search(
                r'mx1.test rejected +192.0.2.1 from .*: on bl.test \(127.0.0.2\), rule "blocked"', done.output
            )
            assert "these are the last verdicts of this host's daemon" in done.error
            keys = redis.keys()
            assert not [key for key in keys if b"verdicts" in key]


class Other(BaseHTTPRequestHandler):
    """Something else on the daemon's port."""

    answer = b""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_words):
        """Keep quiet."""


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x",
        b"1",
        b"[]",
        b"{}",
        b'{"verdicts": 1}',
        b'{"verdicts": [1]}',
        b'{"verdicts": [{}]}',
        b"[" * 9999,
    ],
)
def test_no_daemon_is_asked(tmp_path, answer):
    """One line says so."""
    (tmp_path / "hg.toml").write_text('[metrics]\nkeep_verdicts = "0"\nlisten = "127.0.0.1:PORT"\n')
    with HTTPServer((LOOPBACK, 0), type("Saying", (Other,), {"answer": answer})) as server:
        text = (tmp_path / "hg.toml").read_text().replace("PORT", str(server.server_address[1]))
        (tmp_path / "hg.toml").write_text(text)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        done = log(tmp_path / "hg.toml")
        server.shutdown()
    assert (done.status, done.output) == (69, "")
    assert " does not tell: " in done.error
    assert done.error.count("\n") == 2
