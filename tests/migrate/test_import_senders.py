"""``hybridgrey import`` of known senders: real postgrey and sqlgrey databases, dumps, into a real Redis."""

import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from hybridgrey.config import load
from hybridgrey.greylist.triplets import Greylist, State
from hybridgrey.migrate import greylisters
from hybridgrey.migrate.restore import Memory, Restorer
from hybridgrey.store.connection import Store
from parts.base import wait_until
from parts.greylisters import Postgrey, Sqlgrey
from parts.redisserver import Redis

PROGRAM = [sys.executable, "-c", "from hybridgrey.cli import main; main()"]
DELAY = 300
TERMS = {"retry_window": 172_800, "lifetime": 36 * 86_400, "auto_allow_after": 5}


@pytest.fixture(scope="module")
def redis():
    """A Redis for all tests of this module."""
    with Redis() as server:
        yield server


@pytest.fixture
def world(redis, tmp_path):
    """An empty store with its config file."""
    redis.client().flushall()
    return World(redis, tmp_path)


class World:
    """A store, the greylist that the daemon would use on it, and the commands."""

    def __init__(self, redis, folder, **terms):
        self.redis = redis
        self.path = folder / "hybridgrey.toml"
        self.path.write_text(f'[store]\nurl = "{redis.unix_url}"\n')
        self.store = Store.open(redis.unix_url, 5.0)
        self.terms = {**TERMS, **terms}
        self.greylist = Greylist(self.store, **self.terms, ipv4_prefix=24, ipv6_prefix=64)

    def run(self, *args, **options):
        """The finished program ``hybridgrey import …``."""
        command = [*PROGRAM, "import", *map(str, args), "-c", str(self.path)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    def counts(self, *args, **options):
        """What the program says of its work."""
        done = self.run(*args, "--json", **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def peek(self, client, sender, recipient):
        """The state that an attempt would have."""
        return self.greylist.peek(client, sender, recipient, DELAY).state

    def entries(self):
        """The greylist's keys with their values."""
        client = self.redis.client()
        return {key: client.get(key) for key in client.scan_iter("hg1:{*")}

    def ttl(self, client, sender, recipient):
        """Seconds that a triplet has to live."""
        return self.redis.client().ttl(self.greylist.keys(client, sender, recipient)[0])

    def restore(self, memories, **options):
        """Write memories without a program."""
        return Restorer(self.store, self.greylist, **self.terms, **options).restore(memories)


KNOWN = [
    ("192.0.2.7", "a@b.example", "c@d.example"),
    ("192.0.2.7", "x/y@b.example", "c/e@d.example"),
    ("192.0.2.7", "", "c@d.example"),
    ("192.0.2.7", "List-4711@b.example", "Other@d.example"),
    ("2001:db8::7", "a@b.example", "c@d.example"),
]
NEW = ("198.51.100.9", "new@b.example", "c@d.example")


@pytest.fixture(scope="module")
def postgrey():
    """A postgrey that runs and has seen senders pass and one wait."""
    with Postgrey() as server:
        for triplet in KNOWN:
            assert "Greylisted" in server.ask(*triplet)

        def passes():
            return all("Greylisted" not in server.ask(*triplet) for triplet in KNOWN)

        wait_until(passes, "postgrey lets its senders in")
        assert "Greylisted" in server.ask(*NEW)
        yield server


def test_postgrey_while_it_runs(world, postgrey):
    """Senders known to a running postgrey pass at once, one that waits goes on waiting."""
    assert world.peek(*KNOWN[0]) is State.NEW
    counts = world.counts("postgrey", postgrey.database, "--delay", "1s")
    assert (counts["passed"], counts["waiting"]) == (len(KNOWN), 1)
    for client, sender, recipient in KNOWN:
        assert world.greylist.touch(client, sender, recipient, DELAY).state is State.KNOWN
    assert world.greylist.touch(*NEW, DELAY).state is State.EARLY


def test_postgrey_dry_run(world, postgrey):
    """A dry run says what would be written and writes nothing."""
    done = world.run("postgrey", "--dry-run", "--delay", "1s", postgrey.database)
    assert f"{len(KNOWN):>9}  passed triplets, new here\n" in done.stdout
    assert done.stdout.endswith("Nothing was written (--dry-run).\n")
    assert world.entries() == {}


def test_postgrey_by_dump(world, postgrey, tmp_path):
    """The output of db_dump, as a file or on standard input, in both of its forms, gives the same."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for part in (b"print", b"bytevalue"):
        options = ["-p"] if part == b"print" else []
        lines = b"".join(greylisters.dump_berkeley(postgrey.database / "postgrey.db"))
        if options:
            lines = _printed(lines)
        assert b"format=" + part in lines
        (folder / "dump").write_bytes(lines)
        for source, given in ((folder / "dump", ""), ("-", lines.decode())):
            world.redis.client().flushall()
            counts = world.counts("postgrey", source, "--delay", "1s", input=given)
            assert (counts["passed"], counts["waiting"]) == (len(KNOWN), 1)
    assert world.peek(*KNOWN[1]) is State.KNOWN


def _printed(lines):
    """A dump in bytevalue form, as db_dump -p prints it."""
    out = []
    for line in lines.splitlines():
        if line.startswith(b" "):
            raw = bytes.fromhex(line.decode())
            line = b" " + b"".join(bytes([c]) if 32 <= c < 127 and c != 92 else b"\\%02x" % c for c in raw)
        out.append(line.replace(b"format=bytevalue", b"format=print"))
    return b"\n".join(out) + b"\n"


def test_twice_is_once(world, postgrey):
    """Importing again changes nothing, the counts of networks among it."""
    world.counts("postgrey", postgrey.database, "--delay", "1s")
    before = world.entries()
    again = world.counts("postgrey", postgrey.database, "--delay", "1s")
    assert (again["passed"], again["waiting"], again["kept"]) == (0, 0, len(KNOWN) + 1)
    assert world.entries() == before


def test_postgrey_clients(world, tmp_path):
    """A client that postgrey allowed is allowed with its network; others are counted, hashes named."""
    now = int(time.time())
    rows = [("192.0.2.7", f"7,{now}"), ("198.51.100.7", f"2,{now}"), ("f" * 40, f"9,{now}"), ("x", "y")]
    text = "VERSION=3\nformat=print\ntype=btree\nHEADER=END\n"
    text += "".join(f" {key}\n {value}\n" for key, value in rows) + "DATA=END\n"
    counts = world.counts("postgrey", "-", input=text)
    assert counts["networks"] == 1
    assert counts["left_out"] == {
        "clients not allowed there yet": 1,
        "hashed by --privacy": 1,
        "not understood": 1,
    }
    assert world.peek("192.0.2.99", "who@ever.example", "c@d.example") is State.NETWORK
    assert world.peek("198.51.100.7", "who@ever.example", "c@d.example") is State.NEW


def test_ages(world):
    """What was seen long ago has the rest of the lifetime left; what is too old is left out."""
    now = int(time.time())
    day = 86_400
    world.restore(
        [
            Memory("192.0.2.1", "a@a.example", "r@r.example", now - 90 * day, now - 30 * day),
            Memory("192.0.2.1", "b@a.example", "r@r.example", now - 90 * day, now - 40 * day),
            Memory("192.0.2.1", "c@a.example", "r@r.example", now - day, now - day, passed=False),
            Memory("192.0.2.1", "d@a.example", "r@r.example", now - 3 * day, now - 3 * day, passed=False),
        ]
    )
    assert 6 * day - 60 <= world.ttl("192.0.2.1", "a@a.example", "r@r.example") <= 6 * day
    assert world.greylist.peek("192.0.2.1", "a@a.example", "r@r.example", DELAY).age >= 90 * day
    assert world.peek("192.0.2.1", "b@a.example", "r@r.example") is State.NEW
    assert world.peek("192.0.2.1", "c@a.example", "r@r.example") is State.PASSED
    assert world.peek("192.0.2.1", "d@a.example", "r@r.example") is State.NEW


def test_credit_is_not_imported_in_a_burst(redis, tmp_path):
    """Of triplets that began within an hour one counts for the network, whatever their order and number."""
    redis.client().flushall()
    world = World(redis, tmp_path, auto_allow_interval=3600)
    now = int(time.time())

    def of(*hours):
        firsts = [now - 86_400 + int(hour * 3600) for hour in hours]
        return [Memory("192.0.2.1", f"s@{at}.example", "r@r.example", at, now - 60) for at in firsts]

    def count():
        return int(redis.client().get(world.greylist.keys("192.0.2.1", "", "")[1]) or 0)

    assert world.restore(of(0.2, 0.1, 0.3, 0, 0.4)).passed == 5
    assert count() == 1
    assert world.peek("192.0.2.9", "new@x.example", "r@r.example") is State.NEW
    assert world.restore(of(0, 0.1, 0.2, 0.3, 0.4)).passed == 0
    world.restore(of(3, 1, 2, 2.5))
    assert count() == 4
    world.restore(of(5, 3.5))
    assert count() == 5
    assert world.peek("192.0.2.9", "new@x.example", "r@r.example") is State.NETWORK


def test_nothing_gets_worse(world):
    """An older memory shortens no expiry, and a waiting one takes no pass away."""
    now = int(time.time())
    triplet = ("192.0.2.1", "a@a.example", "r@r.example")
    world.restore([Memory(*triplet, now - 600, now)])
    before = world.ttl(*triplet)
    counts = world.restore(
        [Memory(*triplet, now - 900, now - 86_400), Memory(*triplet, now, now, passed=False)]
    )
    assert (counts.kept, counts.passed) == (1, 0)
    assert world.ttl(*triplet) >= before - 5
    assert world.peek(*triplet) is State.KNOWN
    world.redis.client().persist(world.greylist.keys(*triplet)[0])
    world.restore([Memory(*triplet, now, now)])
    assert world.ttl(*triplet) == -1


def test_distinct_passes_allow_a_network(world):
    """Triplets brought along count for their network as if they had passed here."""
    now = int(time.time())
    five = [Memory("192.0.2.1", f"{name}@a.example", "r@r.example", now, now) for name in "abcde"]
    world.restore(five[:4])
    assert world.peek("192.0.2.9", "new@a.example", "r@r.example") is State.NEW
    world.restore(five)
    assert world.peek("192.0.2.9", "new@a.example", "r@r.example") is State.NETWORK


def test_many_triplets_of_one_network(world):
    """A network of more triplets than one call takes is written whole."""
    now = int(time.time())
    names = [a + b + c for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyzabcdef"]
    counts = world.restore(Memory("192.0.2.1", f"{n}@a.example", "r@r.example", now, now) for n in names)
    assert counts.passed == len(names)
    assert world.redis.client().get(world.greylist.keys("192.0.2.1", "", "")[1]) == b"%d" % len(names)


@pytest.fixture(scope="module")
def sqlgrey():
    """A sqlgrey with a sender that has passed and one that waits."""
    with Sqlgrey() as server:
        server.ask("192.0.2.7", "a@b.example", "c@d.example")

        def passes():
            return "451" not in server.ask("192.0.2.7", "a@b.example", "c@d.example")

        time.sleep(1.1)
        wait_until(passes, "sqlgrey lets its sender in")
        server.ask(*NEW)
        yield server


def test_sqlgrey(world, sqlgrey):
    """A sender known to sqlgrey passes at once, by its network; one that waits goes on waiting."""
    counts = world.counts("sqlgrey", sqlgrey.database)
    assert (counts["networks"], counts["waiting"]) == (1, 1), sqlgrey.log_text()
    assert world.greylist.touch("192.0.2.7", "a@b.example", "c@d.example", DELAY).accepted
    assert world.greylist.touch(*NEW, DELAY).state is State.EARLY


DUMP = """\
# milter-greylist databank, generated 2026-01-31 10:00:00

#
# greylisted tuples
#
# Sender IP\tSender e-mail\tRecipient e-mail\tTime accepted
198.51.100.9\t<new@b.example>\t<c@d.example>\t{soon} # 2026-01-31 10:30:00

#
# Auto-whitelisted tuples
#
# Sender IP\tSender e-mail\tRecipient e-mail\tExpire
192.0.2.7\t<a@b.example>\t<c@d.example>\t{later} AUTO # 2026-02-28 10:00:00
192.0.2.7\t<>\t<c@d.example>\t{later} AUTO
# Sender IP      Sender e-mail      Recipient e-mail    Expire
2001:db8::7     <a@b.example>     <c@d.example>    {later} AUTO
this is no tuple
# Summary: 4 records, 1 greylisted, 3 whitelisted
"""


def test_milter_greylist(world, tmp_path):
    """Auto-whitelisted tuples pass at once, greylisted ones go on waiting; bad lines are counted."""
    now = int(time.time())
    path = tmp_path / "greylist.db"
    path.write_text(DUMP.format(soon=now + 1800, later=now + 20 * 86_400))
    counts = world.counts("milter-greylist", path, "--autowhite", "32d")
    assert (counts["passed"], counts["waiting"], counts["left_out"]) == (3, 1, {"not understood": 1})
    # Seen 12 days ago, for it ends in 20 of 32 days.
    assert 24 * 86_400 - 60 <= world.ttl(*KNOWN[0]) <= 24 * 86_400
    for triplet in (KNOWN[0], KNOWN[2], KNOWN[4]):
        assert world.greylist.touch(*triplet, DELAY).state is State.KNOWN
    assert world.peek(*NEW) is State.EARLY


def test_whitelists_are_rules(tmp_path):
    """postgrey's whitelists are printed as rules that load, before a greylisting rule."""
    (tmp_path / "whitelist_clients").write_text(
        "# c\n192.0.2.1\n192.0.2.0/25\n192.0.3\nexample.org # x\n/^mx\\d/\n2001:db8::/32\n"
    )
    (tmp_path / "whitelist_recipients").write_text("postmaster@\nabuse@example.org\nexample.net\n")
    done = subprocess.run(
        [*PROGRAM, "import", "postgrey", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rules = tomllib.loads(done.stdout)["rule"]
    assert rules[0]["clients"] == [
        *("192.0.2.1", "192.0.2.0/25", "192.0.3.0/24", "example.org", ".example.org", "2001:db8::/32")
    ]
    assert rules[1]["recipients"] == ["postmaster@", "abuse@example.org", "@example.net", ".example.net"]
    assert done.stderr == f"{tmp_path}/whitelist_clients:6: /^mx\\d/: not taken over: a regular expression\n"
    path = tmp_path / "hybridgrey.toml"
    path.write_text(done.stdout)
    assert len(load.load(path).rules) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["postgrey", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["postgrey", "{folder}"], "neither postgrey's databases nor its whitelists are in it"),
        (["postgrey", "{folder}/garbage"], "db_dump failed"),
        (["postgrey", "{folder}/cut"], "is no complete output of db_dump"),
        (["sqlgrey", "/nonexistent"], "/nonexistent: no such file"),
        (["sqlgrey", "{folder}/garbage"], "file is not a database"),
        (["milter-greylist", "/nonexistent"], "/nonexistent: No such file or directory"),
    ],
)
def test_bad_sources(world, tmp_path, arguments, said):
    """What cannot be read is one line on stderr and status 1."""
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "garbage").write_bytes(bytes(range(256)) * 40)
    (folder / "cut").write_text("VERSION=3\nformat=print\nHEADER=END\n a\n")
    done = world.run(*(a.format(folder=folder) for a in arguments))
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_store_down(tmp_path):
    """A store that does not answer is one line on stderr and status 69."""
    path = tmp_path / "hybridgrey.toml"
    path.write_text('[store]\nurl = "redis://127.0.0.1:1/0"\n')
    dump = Path(tmp_path / "dump")
    dump.write_text(f"192.0.2.1 <a@b> <c@d> {int(time.time())} AUTO\n")
    done = subprocess.run(
        [*PROGRAM, "import", "milter-greylist", str(dump), "-c", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (69, 1)
