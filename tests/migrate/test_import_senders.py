"""``hybridgrey import`` of known senders: real postgrey and sqlgrey databases, dumps, into a real Redis."""

import json
import re
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.config import load
from hybridgrey.greylist.triplets import Greylist, State, parse_note
from hybridgrey.migrate import greylisters, namepattern, whitelists
from hybridgrey.migrate.restore import Memory, Restorer
from hybridgrey.policy.match import Index, Kind, parse_entry
from hybridgrey.store.connection import Store
from parts.base import wait_until
from parts.forked import run
from parts.greylisters import Postgrey, Sqlgrey
from parts.greyterms import GreyTerms

DELAY = 300
TERMS = GreyTerms()


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
        self.greylist = Greylist(self.store, replace(TERMS, **terms))

    def run(self, *args, **options):
        """The finished program ``hybridgrey import …``."""
        return run("import", *args, "-c", self.path, **options)

    def counts(self, *args, **options):
        """What the program says of its work."""
        done = self.run(*args, "--json", **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def peek(self, client, sender, recipient):
        """The state that an attempt would have."""
        return self.greylist.peek(client, sender, recipient, DELAY).state

    def entries(self):
        """The keys of triplets and counts with their values; notes of credit apart."""
        client = self.redis.client()
        return {key: client.get(key) for key in client.scan_iter("hg1:{*") if parse_note(key) is None}

    def ttl(self, client, sender, recipient):
        """Seconds that a triplet has to live."""
        return self.redis.client().ttl(self.greylist.keys(client, sender, recipient)[0])

    def restore(self, memories, **options):
        """Write memories without a program."""
        return Restorer(self.store, self.greylist, **options).restore(memories)


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


def test_postgrey_by_host(world):
    """Keys with the prefix length of a single address give triplets that are found again, as counted."""
    known = [*KNOWN, ("192.0.2.9", "ann/b@b.example", "c@d.example"), ("198.51.100.1", "ann", "c@d.example")]
    with Postgrey("--lookup-by-host") as server:
        for triplet in known:
            server.ask(*triplet)
        wait_until(
            lambda: all("Greylisted" not in server.ask(*t) for t in known), "postgrey lets its senders in"
        )
        server.ask(*NEW)
        keys = [
            key
            for key, _value in greylisters.pairs(greylisters.dump_berkeley(server.database / "postgrey.db"))
        ]
        assert any(key.startswith("192.0.2.7/32/") for key in keys), keys
        counts = world.counts("postgrey", server.database, "--delay", "1s")
    assert (counts["passed"], counts["waiting"], counts["uncertain"]) == (len(known), 1, 1)
    assert [world.peek(*triplet) for triplet in known] == [State.KNOWN] * len(known)
    assert world.peek(*NEW) is State.EARLY
    assert len(world.entries()) == len(known) + 1 + len({"192.0.2", "2001:db8::", "198.51.100"})


def test_postgrey_numbers(world):
    """A sender with a number that postgrey dropped is told, where a short one is kept here."""
    now = int(time.time())
    rows = [f"192.0.2.0/{sender}@b.example/c@d.example" for sender in ("john.#", "bounce-#", "ann")]
    text = "VERSION=3\nformat=print\ntype=btree\nHEADER=END\n"
    text += "".join(f" {key}\n {now - 900},{now}\n" for key in rows) + "DATA=END\n"
    counts = world.counts("postgrey", "-", input=text)
    assert (counts["passed"], counts["uncertain"], counts["left_out"]) == (3, 1, {})
    assert world.peek("192.0.2.1", "bounce-7@b.example", "c@d.example") is State.KNOWN
    said = world.run("postgrey", "-", "--dry-run", input=text).stdout
    assert "1  of these: senders with numbers that postgrey dropped" in said


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
        for source, piped in ((folder / "dump", ""), ("-", lines.decode())):
            world.redis.client().flushall()
            counts = world.counts("postgrey", source, "--delay", "1s", input=piped)
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
192.0.2.7	<a#b@b.example>	<"c # d"@d.example>	{later} AUTO # 2026-02-28 10:00:00
192.0.2.7	<"john doe"@b.example>	<c@d.example>	{later} AUTO
192.0.2.7	<"a>b\\" c"@b.example>	<c@d.example>	{later} AUTO #
192.0.2.7	a@bare.example	c@d.example	{later} AUTO
192.0.2.7	<"a>b@b.example>	<c@d.example>	{later} AUTO
this is no tuple
# Summary: 4 records, 1 greylisted, 3 whitelisted
"""


def test_milter_greylist(world, tmp_path):
    """Auto-whitelisted tuples pass at once, greylisted ones go on waiting; bad lines are counted."""
    now = int(time.time())
    path = tmp_path / "greylist.db"
    path.write_text(DUMP.format(soon=now + 1800, later=now + 20 * 86_400))
    counts = world.counts("milter-greylist", path, "--autowhite", "32d")
    assert (counts["passed"], counts["waiting"], counts["left_out"]) == (7, 1, {"not understood": 2})
    # Seen 12 days ago, for it ends in 20 of 32 days.
    assert 24 * 86_400 - 60 <= world.ttl(*KNOWN[0]) <= 24 * 86_400
    odd = [
        ("192.0.2.7", "<a#b@b.example>", '<"c # d"@d.example>'),
        ("192.0.2.7", '<"john doe"@b.example>', "<c@d.example>"),
        ("192.0.2.7", '<"a>b\\" c"@b.example>', "<c@d.example>"),
        ("192.0.2.7", "<a@bare.example>", "<c@d.example>"),
    ]
    for triplet in (KNOWN[0], KNOWN[2], KNOWN[4], *odd):
        assert world.greylist.touch(*triplet, DELAY).state is State.KNOWN
    assert world.peek(*NEW) is State.EARLY


def test_whitelists_are_rules(tmp_path):
    """postgrey's whitelists are printed as rules that load, before a greylisting rule."""
    (tmp_path / "whitelist_clients").write_text(
        "# c\n192.0.2.1\n192.0.2.0/25\n192.0.3\nexample.org # x\n/^mx\\d/\n2001:db8::/32\n"
        "/^mx\\d+\\.example\\.net$/\n192.0.4.0-192.0.5.255\n192.0.6.x\n192.0.7.9/24\n"
    )
    (tmp_path / "whitelist_recipients").write_text("postmaster@\nabuse@example.org\nexample.net\n")
    done = run("import", "postgrey", tmp_path)
    assert done.returncode == 0, done.stderr
    rules = tomllib.loads(done.stdout)["rule"]
    assert rules[0]["clients"] == [
        *("192.0.2.1", "192.0.2.0/25", "192.0.3.0/24", "example.org", ".example.org", "2001:db8::/32"),
        *("mx*.example.net", "192.0.4.0/23", "192.0.6.0/24", "192.0.7.0/24"),
    ]
    assert rules[1]["recipients"] == [
        *("postmaster@", "postmaster+*@", "abuse@example.org", "abuse+*@example.org"),
        *("@example.net", ".example.net"),
    ]
    said = "not taken over: it has no $ at its end, so anybody may have such a name"
    assert done.stderr == f"{tmp_path}/whitelist_clients:6: /^mx\\d/: {said}\n"
    assert "192.0.4.0-192.0.5.255, 192.0.6.x: became the networks that are meant" in done.stdout
    path = tmp_path / "hybridgrey.toml"
    path.write_text(done.stdout)
    assert len(load.load(path).rules) == 2


@pytest.mark.parametrize("name", ["postgrey_whitelist_clients", "postgrey_whitelist_clients.local"])
def test_upstream_names(tmp_path, name):
    """The whitelists are known by the names that postgrey itself gives them; an editor's copy is none."""
    (tmp_path / name).write_text("192.0.2.1\n")
    (tmp_path / "postgrey_whitelist_recipients").write_text("abuse@\n")
    (tmp_path / "postgrey_whitelist_clients~").write_text("192.0.2.2\n")
    for paths in ([tmp_path], [tmp_path / name, tmp_path / "postgrey_whitelist_recipients"]):
        done = run("import", "postgrey", *paths)
        assert done.returncode == 0
        rules = tomllib.loads(done.stdout)["rule"]
        assert [r.get("clients") or r["recipients"] for r in rules] == [["192.0.2.1"], ["abuse@", "abuse+*@"]]


# Names of the form of each expression in the whitelist that comes with postgrey.
OF_EXPRESSIONS = [
    "ms-smtp-03.texas.rr.com",
    "lakermmtao05.cox.net",
    "sc004pub.verizon.net",
    "sv7pub.verizon.net",
    "mail12.telekom.de",
    "smtp4.tiscali.dk",
    "fmr20.intel.com",
    "fe3.cox-internet.com",
    "gateway2.np4.de",
    "mail-in-07.arcor-online.net",
    "mailgw1.iai.co.il",
    "mail3.usafisnews.org",
    "odk.fdv.uni-lj.si",
    "mta1.siol.net",
    "mta2.siol.net",
    "pim-12-3.quickinspirationsmail.com",
    "psmtp01.wxs.nl",
    "smtp-in.eu.wxs.nl",
    "smtp12.orange.fr",
    "smtp3.citigroup.com",
    "mail1.pi.ws",
    "smtp5-g21.free.fr",
    "postfix3-g21.free.fr",
    "netmail1.thehartford.com",
    "nse2.abb.com",
    "mail4.msg.oleane.net",
    "mx03.eu.inode.at",
    "x1.server.arvato-systems.de",
    "fallback-mx2.atl.registeredsite.com",
    "outmail02.sctm.tfbnw.net",
    "m50-111.126.com",
    "viefep15-int.chello.at",
    "mx7.evanzo-server.de",
    "smtp05.smtpout.orange.fr",
    "fallback4.mail.ru",
    "fallback12.m.smailru.net",
    "o12.ntdc.magisto.com",
    "smarthost3.evanzo-server.de",
]


def test_the_whitelist_that_comes_with_postgrey():
    """Each entry of the package's own whitelist becomes entries, which let in what its expressions do."""
    text = Path("/etc/postgrey/whitelist_clients").read_text()
    found = whitelists.convert(text, "whitelist_clients")
    assert len(found) == 1, found[1:]
    index = Index([[parse_entry(Kind.CLIENT, c) for c in found[0].table["clients"]]])
    expressions = re.findall(r"^/(.*)/$", text, re.MULTILINE)
    assert len(expressions) == 34
    for expression in expressions:
        assert any(re.fullmatch(expression, name) for name in OF_EXPRESSIONS), expression
    for name in OF_EXPRESSIONS:
        assert index.client(None, name), name
        assert not index.client(None, f"{name}.evil.example"), name
        assert not index.client(None, f"evil-{name.partition('.')[2]}"), name


EXPRESSIONS = [
    # an expression, its entries (none: it is not taken over)
    (r"^mail\d+\.a\.example$", ["mail*.a.example"]),
    (r"^mail[0-9]{1,3}\.a\.example$", ["mail*.a.example"]),
    (r"^mta[12].a.example$", ["mta1.a.example", "mta2.a.example"]),
    (r"^p?mx\.a\.example$", ["pmx.a.example", "mx.a.example"]),
    (r"^(?:mx|mail\d*)-out\.a\.example$", ["mx-out.a.example", "mail*-out.a.example"]),
    (r"^mx.*\.a\.example$", ["mx*.a.example", "mx*.*.a.example"]),
    (r"^.*\.a\.example$", [".a.example"]),
    (r"\.a\.example$", [".a.example"]),
    (r"(^|\.)a\.example$", ["a.example", ".a.example"]),
    (r"^mail\d+\.a\.example", []),
    (r"mail\d+\.a\.example$", []),
    (r"^mail\d+\.example$", []),
    (r"^mail\d+\..*$", []),
    (r"^.*$", []),
    (r"^(?=mx)\w+\.a\.example$", []),
    (r"^mx+\.a\.example$", []),
    (r"^(mx\.a\.example$", []),
    (r"^mx)\.a\.example$", []),
    (r"^[ab][ab][ab][ab][ab][ab]\.a\.example$", []),
]


@pytest.mark.parametrize(("expression", "wanted"), EXPRESSIONS)
def test_regular_expressions(expression, wanted):
    """An expression that is a name with something open becomes entries; one for anybody's names does not."""
    found = whitelists.convert(f"/{expression}/", "whitelist_clients")
    assert (found[0].table.get("clients", [])) == wanted
    assert found[0].lost is not bool(wanted)


@given(st.text("ab.-\\d[]()|?*+^$0{}:", max_size=30))
def test_any_expression(expression):
    """Any text for an expression is read or refused, in bounded work."""
    try:
        names = namepattern.entries(expression)
    except namepattern.NamePatternError:
        return
    assert len(names) <= 2 * namepattern.MOST


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
    done = run("import", "milter-greylist", dump, "-c", path)
    assert (done.returncode, len(done.stderr.splitlines())) == (69, 1)
