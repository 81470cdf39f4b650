"""``hybridgrey report observed``: the log's verdicts summed up, in bounded memory and past any garbage."""

import gzip
import json
import os
import pty
import resource
import subprocess
import sys

import pytest

from hybridgrey.cli import report_observed
from hybridgrey.outcome import Outcome
from hybridgrey.report.observed import Heaviest, Summary, VerdictReader
from parts import forked
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

PROGRAM = [sys.executable, "-c", "from hybridgrey.cli import main; main()"]


def verdict(ts="2026-01-31T10:00:00.000Z", **fields):
    """A log line, as the daemon writes it."""
    event = {
        "ts": ts,
        "level": "info",
        "event": "verdict",
        "queue_id": None,
        "client": "192.0.2.1",
        "host": None,
        "helo": "x",
        "sender": "a@b.example",
        "recipient": "c@d.example",
        "rule": "the rest",
        "action": "greylist",
        "lists": {},
        "state": "new",
        "age": 0,
        "wait_ms": 0.1,
        "enforced": False,
    }
    return json.dumps({**event, **fields})


LISTED = {"rule": "blocklists", "action": "reject", "state": None}
BOTH = {"zen.spamhaus.org": ["127.0.0.4"], "list.dnswl.org": ["127.0.5.2"]}
WEAK = {"zen.spamhaus.org": ["127.0.0.4"], "list.dnswl.org": ["127.0.5.0"]}
LOG = [
    verdict(),
    verdict(state="early", client="192.0.2.2"),
    verdict(ts="2026-02-01T10:00:00.000Z", state="passed", age=400),
    verdict(**LISTED, lists=BOTH, client="198.51.100.1"),
    verdict(**LISTED, lists=WEAK, client="198.51.100.1", sender="\u001b[31mred@b.example"),
    verdict(rule="allowlists", action="accept", state=None, lists={"bl.mailspike.net": "timeout"}),
    verdict(rule=None, action="accept", state=None, noted=["trial"]),
    verdict(state=None, reply="451 4.3.0 Temporary failure", store_error="down", enforced=True),
    '{"ts":"2026-01-31T10:00:00.000Z","level":"info","event":"started"}',
    "Jan 31 10:00:00 mx hybridgrey[7]: " + verdict(**LISTED, lists={"bl.mailspike.net": ["127.0.0.2"]}),
    "this is no JSON",
    '{"cut":',
    "[1, 2]",
    '{"event":"verdict"}',
    '{"event":"verdict","lists":[1],"rule":7,"client":{},"noted":"x","ts":null,"action":[]}',
]


def run(*args, **options):
    """The finished program."""
    return forked.run("report", "observed", *args, **options)


@pytest.fixture
def world(tmp_path):
    """A config file and a log; gives a function that runs the command on arguments."""
    (tmp_path / "hg.toml").write_text("")
    (tmp_path / "log").write_text("\n".join(LOG) + "\n")

    def call(*args, **options):
        return run("-c", tmp_path / "hg.toml", *args, **options)

    call.folder = tmp_path
    return call


def test_outcomes(world):
    """Recipients are counted by what they got, by rule and by list."""
    document = json.loads(world("--json", world.folder / "log").stdout)
    assert document["verdicts"] == 11
    assert document["outcomes"] == {"rejected": 3, "greylisted": 2, "deferred": 1, "accepted": 5}
    assert document["rules"]["the rest"] == {"greylisted": 2, "accepted": 1, "deferred": 1}
    assert document["rules"]["(no rule)"] == {"accepted": 3}
    assert document["lists"]["zen.spamhaus.org"] == {"listed": 2, "errors": 0}
    assert document["lists"]["bl.mailspike.net"] == {"listed": 1, "errors": 1}
    assert document["noted"] == {"trial": 1}
    assert document["clients"]["rejected"]["198.51.100.1"] == 2
    assert document["lines"] == {"garbage": 3, "other": 1, "earlier": 0}
    assert document["enforced"] == 3
    assert document["last"] == "2026-02-01T10:00:00.000Z"


def test_claimed_by_both(world):
    """Mail whose client is on a blocklist and, with a code that a rule asks for, on an allowlist is named."""
    document = json.loads(world("--json", world.folder / "log").stdout)
    assert document["claimed_by_both"] == {
        "count": 1,
        "samples": [
            {
                "time": "2026-01-31T10:00:00.000Z",
                "client": "198.51.100.1",
                "sender": "a@b.example",
                "recipient": "c@d.example",
                "outcome": "rejected",
                "blocklists": ["zen.spamhaus.org"],
                "allowlists": ["list.dnswl.org"],
            }
        ],
    }


def test_text(world):
    """The text for people has the same numbers, in tables, and no control character of a sender's."""
    done = world(world.folder / "log")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "11 recipients from" in lines[0]
    assert "rejected 3 27.3 %" in lines
    assert "the rest 0 2 1 1" in lines
    assert "On a blocklist and on an allowlist: 1" in lines
    assert lines[-1] == "3 lines passed over: no JSON"
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(("number", "said"), [(1, "1 recipient from"), (1200, "1,200 recipients from")])
def test_one_and_many(number, said, capsys):
    """Nouns agree with their numbers."""
    report_observed.print_text(Summary(verdicts=number), counted=True)
    assert capsys.readouterr().out.startswith(said)


def test_bounces_have_a_name(capsys):
    """The sender of bounces is written as elsewhere, and not as if it were missing."""
    heaviest = Heaviest.of([("b.example", 3), ("", 2)])
    report_observed.print_text(Summary(verdicts=5, senders={Outcome.GREYLISTED: heaviest}), counted=True)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["b.example", "3"] in rows
    assert ["<>", "2"] in rows


def test_terminal(world):
    """On a terminal the tables are drawn."""
    master, slave = pty.openpty()
    command = [*PROGRAM, "report", "observed", "-c", world.folder / "hg.toml", world.folder / "log"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    subprocess.run(command, stdin=slave, stdout=slave, stderr=slave, check=True, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            shown += os.read(master, 65536)
        except OSError:  # all was read, and the other end is closed
            break
    os.close(master)
    assert "─" in shown.decode()


def test_sources(world):
    """Files, gzipped ones among them, and standard input are read one after the other."""
    packed = world.folder / "log.1.gz"
    packed.write_bytes(gzip.compress((world.folder / "log").read_bytes()))
    counts = [
        json.loads(world("--json", *files, input=verdict()).stdout)["verdicts"]
        for files in ([packed], [packed, world.folder / "log"], ["-"], [], [packed, "-"])
    ]
    assert counts == [11, 22, 1, 1, 12]


@pytest.mark.parametrize(
    ("since", "count"),
    [("2026-02-01T00:00", 1), ("2026-02-01T11:00:00+02:00", 1), ("2025-01-01", 9), ("9000d", 9)],
)
def test_since(world, since, count):
    """--since leaves out what came before a time or a span; what has no time is left out too."""
    done = world("--json", "--since", since, world.folder / "log")
    assert json.loads(done.stdout)["verdicts"] == count


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", [], "the log is empty"),
        ("nothing\n", [], "none of its 1 lines is a verdict in JSON"),
        (verdict(), ["--since", "1s"], "all 1 verdicts in it are from before --since"),
    ],
)
def test_no_verdict(world, text, options, said):
    """A log without a verdict is one line that says why, and status 1."""
    done = world(*options, "-", input=text)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "content", [gzip.compress(b"x" * 5000)[:-9], b"\x1f\x8bnot gzip"], ids=["cut off", "not gzip"]
)
def test_damaged_gzip(world, content):
    """A damaged archive and a missing file are one line each, and status 1."""
    path = world.folder / "bad.gz"
    path.write_bytes(content)
    for file in (path, world.folder / "missing"):
        done = world(file)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_bad_since(world):
    """A --since that is no time is wrong usage."""
    assert world("--since", "soon", world.folder / "log").returncode == 2


def test_memory_is_bounded(world):
    """A log of 300,000 different clients and senders, and a line of 50 MB, take less than 150 MiB."""
    path = world.folder / "big"
    with path.open("w") as file:
        line = verdict(client="CLIENT", sender="SENDER")
        for n in range(300_000):
            file.write(line.replace("CLIENT", f"client{n}").replace("SENDER", f"sender{n}@b.example") + "\n")
        file.write("x" * 50_000_000 + "\n" + verdict() + "\n")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (600 * 2**20, 600 * 2**20))

    # Not ru_maxrss, which a process inherits from the one that started it.
    program = "from hybridgrey.cli import hybridgrey as h; import sys\ntry: h()\nfinally:"
    program += " print(*(l.split()[1] for l in open('/proc/self/status') if 'VmHWM' in l), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program, "report", "observed", "--json", "-c", world.folder / "hg.toml", path],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert json.loads(done.stdout)["verdicts"] == 300_001
    assert int(done.stderr) < 150 * 1024


def test_heaviest():
    """The heaviest keys are right although most keys were let go."""
    heaviest = Heaviest(limit=100)
    for n in range(5000):
        heaviest.add(f"light{n}")
        heaviest.add("a" if n % 2 else "b")
        heaviest.add("b")
    assert heaviest.top(2) == [("b", 7500), ("a", 2500)]
    assert not heaviest.exact


def test_names_are_bounded():
    """A log with endless rules and lists does not fill memory."""
    reader = VerdictReader({}, {})
    reader.read(verdict(rule=f"r{n}", lists={f"l{n}": []}).encode() for n in range(3000))
    assert (len(reader.summary.rules), len(reader.summary.lists)) == (2000, 2000)
    assert reader.summary.verdicts == 3000


def test_a_daemon_in_observe_mode():
    """The log of a real daemon in observe mode gives the report of what it would have done."""
    with Redis() as redis, FakeDns() as dns:
        dns.zone("zen.spamhaus.org", listed={"192.0.2.66": "127.0.0.4"})
        for name in ("bl.mailspike.net", "rep.mailspike.net", "list.dnswl.org"):
            dns.zone(name)
        settings = {
            "mode": "observe",
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
        }
        with Daemon(settings) as daemon:
            for client in ("192.0.2.66", "198.51.100.1"):
                with MilterPeer(daemon.address) as peer:
                    peer.connect("mail.example.org", client)
                    peer.mail("<a@example.org>")
                    assert peer.rcpt("<b@example.net>").passes
            daemon.await_events("verdict", 2)
            done = run("--json", "-c", daemon.config, daemon.log)
    document = json.loads(done.stdout)
    assert document["outcomes"] == {"rejected": 1, "greylisted": 1, "deferred": 0, "accepted": 0}
    assert (document["enforced"], document["lines"]["garbage"]) == (0, 0)
    assert document["clients"]["rejected"] == {"192.0.2.66": 1}
    assert document["lists"]["zen.spamhaus.org"]["listed"] == 1
