"""The config file: what it means, and what it is warned for."""

import re
import tomllib
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from pydantic import ValidationError

from hybridgrey.config import load as loading
from hybridgrey.config import mistakes
from hybridgrey.config.rules import RuleTable
from hybridgrey.config.scanner import Scanner
from hybridgrey.config.settings import Settings, Zone
from hybridgrey.config.sockets import Address
from hybridgrey.policy.conditions import Hand, Results, Score
from hybridgrey.policy.judge import Action, Policy
from hybridgrey.policy.match import Entry
from hybridgrey.policy.rdns import Name
from parts.configfile import LIST_KEY, load, rule, warnings

SAMPLE = Path(__file__).parents[2] / "etc" / "hybridgrey.toml"


# Defaults and the sample.


def test_empty_file_is_the_default(tmp_path):
    """An empty file means the same as no file at all, and there is nothing to warn of."""
    loaded = load(tmp_path, "")
    assert loaded.model_copy(update={"path": None, "files": (), "sources": {}}) == loading.default()
    assert loaded.warnings == ()


def test_sample_is_the_default(tmp_path):
    """The sample spells out what an empty file means, word for word; the file of pools comes beside it."""
    assert tomllib.loads(SAMPLE.read_text()) | {"zones": {}} == loading.default().shown
    loaded = load(tmp_path, SAMPLE.read_text())
    assert loaded.model_copy(update={"path": None, "files": (), "sources": {}}) == loading.default()
    assert loaded.warnings == ()


def all_of_sample() -> str:
    """The sample with its commented examples switched on."""
    text = re.sub(r"(?m)^# (\[.*\]|[a-z_0-9]+ = .*)$", r"\1", SAMPLE.read_text())
    return text.replace('scanner = ""', 'scanner = "spamd:inet:783@127.0.0.1"')


def test_sample_names_every_key():
    """No key can be added without a place in the sample."""
    sample = tomllib.loads(all_of_sample())
    assert sample.keys() == {*Settings.model_fields, "rule"}
    for name in Settings.model_fields:
        section = mistakes.section_of(name)
        assert section is None or list(sample[name]) == list(section.model_fields), name
    (zone,) = sample["zones"].values()
    assert zone.keys() == Zone.model_fields.keys()
    assert {key for r in sample["rule"] for key in r} == RuleTable.model_fields.keys()


def test_examples_in_the_sample_are_valid(tmp_path):
    """What the sample shows in comments works when switched on."""
    loaded = load(tmp_path, all_of_sample())
    assert [w for w in loaded.warnings if "no rule asks this list" not in w] == []


def test_sample_file_of_clients_is_empty(tmp_path):
    """The sample of allow_clients allows nobody, and every example in it is valid."""
    text = (SAMPLE.parent / "allow_clients").read_text()
    (tmp_path / "allow_clients").write_text(text)
    manual = next(r for r in load(tmp_path, "").rules if r.name == "manual")
    assert manual.clients == ()
    (tmp_path / "allow_clients").write_text(re.sub(r"(?m)^#   ", "", text))
    manual = next(r for r in load(tmp_path, "").rules if r.name == "manual")
    assert manual.clients
    assert len(manual.clients) == 9  # a name in an access table stands for those below it too


# Values.

VALUES = [
    # file, attribute, value
    ('listen = "unix:a.sock"', lambda c: c.address.path, lambda d: d / "a.sock"),
    ("", lambda c: (c.address.host, c.address.port), ("127.0.0.1", 8893)),
    ('socket_mode = "0660"', lambda c: c.socket_mode, 0o660),
    ('drain_timeout = "1m"', lambda c: c.drain_timeout, 60.0),
    ("workers = 7", lambda c: c.worker_count, 7),
    ("workers = 1", lambda c: c.worker_count, 1),
    ("", lambda c: c.worker_count >= 2, True),
    ('mode = "observe"', lambda c: c.observe, True),
    ("", lambda c: c.observe, False),
    ('[store]\ntimeout = "250ms"', lambda c: c.store.timeout, 0.25),
    ('[store]\nurl = "embedded:s"', lambda c: c.store.url.get_secret_value(), lambda d: f"embedded:{d}/s"),
    ('[store]\nkey_secret = "x"', lambda c: c.store.key_secret.get_secret_value(), "x"),
    (
        '[dns]\nnameservers = ["127.0.0.1", "[::1]:5353"]',
        lambda c: c.dns.nameservers,
        (("127.0.0.1", 53), ("::1", 5353)),
    ),
    ("", lambda c: list(map(str, c.dns.nat64)), ["64:ff9b::/96"]),
    ("[dns]\nnat64 = []", lambda c: c.dns.nat64, ()),
    (
        "[dns]\nnat64 = ['2001:db8::/32', '2001:DB8:0:64::/96']",
        lambda c: list(map(str, c.dns.nat64)),
        ["2001:db8::/32", "2001:db8:0:64::/96"],
    ),
    ("[greylist]\ndelay = 90", lambda c: c.greylist.delay, 90),
    ('[greylist]\nlifetime = "1w"', lambda c: c.greylist.lifetime, 604800),
    ("", lambda c: (c.greylist.auto_allow_interval, c.greylist.max_waiting), (3600, 1000)),
    ("", lambda c: (c.greylist.sender_pools, c.spf.widest_ipv4, c.spf.widest_ipv6), (True, 14, 32)),
    (
        "[correspondents]\nlifetime = '1h'",
        lambda c: (c.correspondents.lifetime, c.correspondents.max_recipients, c.correspondents.max_daily),
        (3600, 20, 200),
    ),
    ("", lambda c: (c.scanner, c.content.timeout, c.content.max_size), (None, 10.0, 524288)),
    ("[content]\nmax_size = '2M'", lambda c: c.content.max_size, 2**21),
    ("[content]\nmax_size = 2048", lambda c: c.content.max_size, 2048),
    (
        "[content]\nscanner = 'spamd:inet:783@127.0.0.1'",
        lambda c: c.scanner,
        Scanner("spamd", Address("inet", "127.0.0.1", 783)),
    ),
    (
        "[content]\nscanner = 'spamd:unix:s'",
        lambda c: (c.scanner.kind, c.scanner.address.path),
        lambda d: ("spamd", d / "s"),
    ),
    (
        "[content]\nscanner = 'rspamd:http://[::1]/'",
        lambda c: c.scanner,
        Scanner("rspamd", Address("inet6", "::1", 11333)),
    ),
    ("", lambda c: c.metrics.listen, ("127.0.0.1", 9893)),
    ('[metrics]\nlisten = ""', lambda c: c.metrics.listen, None),
    ('[zones."Bl.Example."]\nlabel = "b"', lambda c: c.zones["bl.example"].label, "b"),
    (
        '[zones.z]\nerror_codes = ["127.0.1.[0;4]"]',
        lambda c: c.zones["z"].error_codes[0].matches(bytes((127, 0, 1, 4))),
        True,
    ),
    ('[zones.z]\nhealth = "off"', lambda c: c.zones["z"].health, False),
    ("[zones.z]", lambda c: (c.zones["z"].health, c.zones["z"].listed), (True, None)),
    ('[zones.z]\nunlisted = "127.0.0.9"', lambda c: c.zones["z"].unlisted, "127.0.0.9"),
    ("\ufeffworkers = 3", lambda c: c.workers, 3),
    ("workers = 3\r\nuser = ''\r\n", lambda c: c.workers, 3),
]


@pytest.mark.parametrize(("text", "read", "wanted"), VALUES)
def test_values_are_ready_to_use(tmp_path, text, read, wanted):
    """Seconds are numbers, places are parsed, relative paths start at the file's folder."""
    assert read(load(tmp_path, text)) == (wanted(tmp_path) if callable(wanted) else wanted)


def test_config_never_changes():
    """Neither a key nor a section nor a table of a loaded configuration can be set."""
    loaded = loading.default()
    with pytest.raises(ValidationError):
        loaded.workers = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        loaded.store.timeout = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        loaded.zones["a"] = Zone()  # type: ignore[index]
    with pytest.raises(TypeError):
        loaded.shown["workers"] = 3  # type: ignore[index]


def test_rule_has_what_the_file_says(tmp_path):
    """Every key of a rule reaches the policy; a rule without a name is called by its number."""
    loaded = load(
        tmp_path,
        rule(
            'clients = ["192.0.2.0/24", "!192.0.2.1"]\nhelo = ["a.example"]\nsenders = ["b.example"]\n'
            'recipients = ["c@d.example"]\nauthenticated = false\ndns = ["e.example*3", "f.example*-1"]\n'
            'threshold = 2\naction = "greylist"\ntext = "4.7.1 wait {seconds}"\ndelay = "1h"'
        ),
    )
    first, last = loaded.rules
    assert (first.name, first.action, first.threshold, first.delay) == ("rule 1", Action.GREYLIST, 2, 3600)
    assert first.clients == (Entry(IPv4Network("192.0.2.0/24")), Entry(IPv4Network("192.0.2.1/32"), True))
    assert (first.helo, first.senders, first.recipients) == (
        (Entry("a.example"),),
        (Entry("b.example"),),
        (Entry("c@d.example"),),
    )
    assert [(e.zone, e.weight) for e in first.lists] == [("e.example", 3), ("f.example", -1)]
    assert (first.authenticated, first.text) == (False, "4.7.1 wait {seconds}")
    assert (last.name, last.clients, last.lists, last.threshold) == ("the rest", None, (), 1)


def test_a_rule_may_ask_for_facts(tmp_path):
    """Conditions on what is asked for reach the policy; words with ! stand for all others."""
    text = rule(
        'rdns = ["!named"]\nspf = ["pass", "none"]\npools = ["_spf.A.example", "!b.example"]\n'
        'by_hand = "block"\ncorrespondent = false\nscore = " >= 4.5"\naction = "accept"\nlearn = true'
    )
    first, last = load(tmp_path, text + "[content]\nscanner = 'spamd:unix:/s'").rules
    assert first.rdns == {Name.NONE, Name.GENERIC}
    assert first.spf == Results(frozenset({"pass", "none"}))
    assert first.pools == (Entry("_spf.a.example"), Entry("b.example", True))
    assert (first.by_hand, first.correspondent, first.score) == (Hand.BLOCK, False, Score(">=", 4.5))
    assert (first.learn, last.learn, last.asks) == (True, False, False)


def test_sample_file_of_pools(tmp_path):
    """It names some forty large senders, each with what it is, and its examples are valid."""
    text = (SAMPLE.parent / "pools").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9._-]+ +# \S.+", line) for line in lines)
    (tmp_path / "pools").write_text(text)
    assert len(set(Policy(load(tmp_path, "").rules).pools)) == len(lines) >= 40
    (tmp_path / "pools").write_text(re.sub(r"(?m)^#   ", "", text))
    assert "_spf.example.com" in Policy(load(tmp_path, "").rules).pools


def test_pools_come_from_a_file(tmp_path):
    """It is one of the configuration's files, holds domains, and may be missing as allow_clients may."""
    assert Policy(load(tmp_path, "").rules).pools == ()
    (tmp_path / "pools").write_text("# big ones\n_spf.a.example   # a\n\nb.example\n")
    loaded = load(tmp_path, "")
    assert Policy(loaded.rules).pools == ("_spf.a.example", "b.example")
    assert tmp_path / "pools" in loaded.files
    assert tmp_path / "pools" in loaded.sources


def test_default_order():
    """Who is known by hand comes before lists, blocklists before all kindness, greylisting last."""
    names = [r.name for r in loading.default().rules]
    assert names == [
        "authenticated",
        "local",
        "manual",
        "allowed by hand",
        "blocked by hand",
        "blocklists",
        "allowlists",
        "correspondents",
        "pools",
        "the rest",
    ]
    assert [r.name for r in loading.default().rules if r.learn] == ["authenticated", "local"]


FILES = [
    # the condition, the file's text (None: no file), the entries' keys with "!" for excluded ones
    ('["file:f"]', "192.0.2.1\n# no\nmail.example.org\n", ["192.0.2.1/32", "mail.example.org"]),
    ('["file:f"]', "192.0.2 OK\n", ["192.0.2.0/24"]),
    ('["file:f"]', "", []),
    ('["file:f", "!192.0.2.1"]', "", []),
    ('["!file:f"]', "192.0.2.1\n", ["!192.0.2.1/32"]),
    ('["!file:f"]', "", None),
    ('["!file:f", "192.0.2.0/24"]', "192.0.2.1\n", ["!192.0.2.1/32", "192.0.2.0/24"]),
    ('["!192.0.2.1"]', None, ["!192.0.2.1/32"]),
    ('["file:f"]', "!192.0.2.1\n", []),
    ('["file:allow_clients"]', None, []),
    ('["file:allow_clients", "192.0.2.1"]', None, ["192.0.2.1/32"]),
    ('["file:f"]', "\ufeff192.0.2.1\r\n", ["192.0.2.1/32"]),
]


@pytest.mark.parametrize(("condition", "text", "wanted"), FILES)
def test_files_of_entries(tmp_path, condition, text, wanted):
    """A file stands for its entries; an empty one never makes a condition hold for everybody."""
    if text is not None:
        (tmp_path / "f").write_text(text)
    first = load(tmp_path, rule(f'clients = {condition}\naction = "accept"')).rules[0]
    keys = None if first.clients is None else [f"{'!' * e.excluded}{e.key}" for e in first.clients]
    assert keys == wanted


@pytest.mark.parametrize(
    ("condition", "stranger"),
    [
        ('["file:allow_clients"]', False),
        ('["file:allow_clients", "!192.0.2.1"]', False),
        ('["!file:empty"]', True),
        ('["!192.0.2.1"]', True),
    ],
)
def test_no_friends_is_nobody(tmp_path, condition, stranger):
    """A rule for the clients of a missing file matches no stranger, whatever it excludes."""
    (tmp_path / "empty").touch()
    policy = Policy(load(tmp_path, rule(f'clients = {condition}\naction = "accept"', "")).rules)
    assert bool(policy.connect(bytes((203, 0, 113, 9)), None).sure) is stranger


# Warnings.

NOT_ASKED = 'is not asked for the sake of a rule with action "none"'
WARNINGS = [
    # file, what is said of it
    (rule("clients = ['192.0.2.1']\naction = 'accept'", ""), ["rule: no rule decides on everybody else"]),
    (rule("action = 'none'", ""), ["rule: no rule decides on everybody else"]),
    (rule("clients = ['0.0.0.0/0', '::/0']\naction = 'greylist'", ""), []),
    (
        rule(
            "name = 'w'\ndns = ['w.x']\naction = 'accept'",
            rule("name = 'b'\ndns = ['b.x']\naction = 'reject'"),
        ),
        ['rule "b": a client on the lists of rule "w" before it is accepted'],
    ),
    (
        rule("name = 'g'\ndns = ['list.dnswl.org']\naction = 'accept'"),
        ['rule "g": dns[1]: list.dnswl.org has no return codes: it lists clients without a reputation too'],
    ),
    (
        rule("dns = ['rep.mailspike.net*-1', 'a.x', 'xdnswl.org']\naction = 'reject'"),
        ["rule 1: dns[1]: rep.mailspike.net has no return codes: "],
    ),
    (
        rule(
            "name = 'wide'\nclients = ['192.0.2.0/24', '2001:db8::/32']\naction = 'accept'",
            rule(
                "name = 'in'\nclients = ['192.0.2.7', '2001:db8:1::/48']\nhelo = ['a.x']\naction = 'reject'"
            ),
        ),
        ['rule "in": is never reached: rule "wide" has all of its clients'],
    ),
    (
        rule(
            "clients = ['192.0.2.0/25']\naction = 'accept'",
            rule(
                "clients = ['192.0.2.0/24']\naction = 'reject'",
                rule("clients = ['192.0.2.9', 'a.x']\naction = 'accept'"),
            ),
        ),
        [],
    ),
    (
        rule(
            "clients = ['192.0.2.0/24']\nhelo = ['a.x']\naction = 'accept'",
            rule("clients = ['192.0.2.9']\naction = 'reject'"),
        ),
        [],
    ),
    (
        rule(
            "clients = ['192.0.2.0/24']\naction = 'none'", rule("clients = ['192.0.2.9']\naction = 'reject'")
        ),
        [],
    ),
    ("[zones.'unused.example']", ['zones."unused.example": no rule asks this list']),
    ("[zones.'Zen.Spamhaus.org.']\nhealth = 'off'", []),
    (
        "[dns]\nnameservers = ['127.0.0.1', '8.8.8.8:53']",
        ["dns.nameservers[2]: 8.8.8.8 is a public resolver"],
    ),
    (
        "[dns]\nnameservers = ['2606:4700:4700:0:0:0:0:1111']",
        ["dns.nameservers[1]: 2606:4700:4700::1111 is a"],
    ),
    (
        rule("clients = ['64:ff9b::/96']\naction = 'accept'"),
        ["rule 1: clients: 64:ff9b::/96 has every IPv4 client that comes through NAT64"],
    ),
    (rule("clients = ['64:ff9b::c000:200/120']\naction = 'accept'"), []),
    (rule("clients = ['64:ff9b::/96']\naction = 'reject'"), []),
    ("socket_group = 'no-such-group'", ["socket_group: no such group on this host"]),
    ("user = 'root'", []),
    ("[greylist]\nipv4_prefix = 8\nipv6_prefix = 16", ["greylist.ipv4_prefix: ", "greylist.ipv6_prefix: "]),
    ("[greylist]\nlifetime = '1d'", ["greylist.lifetime: "]),
    ("[greylist]\nauto_allow_interval = '0s'", ["greylist.auto_allow_interval: all passes count"]),
    ("[greylist]\nauto_allow_after = 0\nauto_allow_interval = '0s'", []),
    ("[greylist]\nmax_waiting = 0", ["greylist.max_waiting: one client can fill the store"]),
    (
        rule(f"dns = ['{LIST_KEY}.zen.dq.example']\naction = 'reject'"),
        ['zones."********.zen.dq.example": the name seems to hold a key'],
    ),
    # Spamhaus's own have a label that is built in.
    (rule(f"dns = ['{LIST_KEY}.zen.dq.spamhaus.net']\naction = 'reject'"), []),
    ("[metrics]\nlisten = '0.0.0.0:9893'", ["metrics.listen: whoever reaches this address reads the counts"]),
    ("[metrics]\nlisten = '[::]:9893'", ["metrics.listen: whoever reaches this address reads the counts"]),
    ("listen = 'inet:8893@0.0.0.0'", ["listen: listens on all interfaces"]),
    ("listen = 'inet:8893'", ["listen: listens on all interfaces"]),
    ("listen = 'inet6:8893@[::]'", ["listen: listens on all interfaces"]),
    ("listen = 'inet:8893@192.0.2.1'", []),
    ("listen = 'unix:m.sock'", []),
    ("[metrics]\nlisten = '192.0.2.1:9893'\npassword = 'sesame, open'", []),
    ("[metrics]\nlisten = '127.0.0.9:9893'", []),
    ("[metrics]\nlisten = ''", []),
    ("[metrics]\nhistory = false", []),
    ("[metrics]\nhistory = false\nkeep_verdicts = '0'", []),
    (
        "[metrics]\nhistory = false\nkeep_verdicts = '7d'",
        ["metrics.keep_verdicts: without [metrics] history"],
    ),
    (
        "[metrics]\nkeep_verdicts = '7d'\n[store]\nkey_secret = 'k'",
        ["metrics.keep_verdicts: with [store] key_secret no verdict is kept"],
    ),
    ("[metrics]\nkeep_verdicts = '31d'", []),
    (
        "[metrics]\nkeep_verdicts = '365d'",
        ["metrics.keep_verdicts: the bounds on number and size come first"],
    ),
    (rule("rdns = ['generic']\naction = 'reject'"), ["rule 1: rdns: some mail servers are such hosts"]),
    (rule("rdns = ['generic']\ndns = ['a.x']\naction = 'reject'"), []),
    (rule("rdns = ['none']\ndelay = '1h'\naction = 'greylist'"), []),
    (rule("spf = ['pass']\naction = 'accept'"), ["rule 1: spf: spammers have such results too"]),
    (rule("spf = ['pass']\nsenders = ['a.x']\naction = 'accept'"), []),
    (rule("spf = ['fail']\naction = 'reject'"), []),
    (rule("spf = ['fail']\naction = 'none'"), [f"rule 1: spf: {NOT_ASKED}: it never notes"]),
    (
        rule("spf = ['fail']\naction = 'none'", rule("spf = ['fail']\naction = 'reject'")),
        [f"rule 1: spf: {NOT_ASKED}: it notes only mail of which another rule asks it"],
    ),
    (
        rule("correspondent = true\nby_hand = 'allow'\nspf = ['pass']\naction = 'none'"),
        [f"rule 1: spf: {NOT_ASKED}", f"rule 1: correspondent: {NOT_ASKED}"],
    ),
    (rule("dns = ['a.x']\naction = 'none'"), []),
    (rule("pools = ['a.example']\naction = 'greylist'", ""), ["rule: no rule decides on everybody else"]),
    (rule("spf = ['!pass']\naction = 'greylist'", ""), ["rule: no rule decides on everybody else"]),
    (
        rule(
            "clients = ['192.0.2.0/24']\nspf = ['fail']\naction = 'reject'",
            rule("clients = ['192.0.2.0/25']\naction = 'accept'"),
        ),
        [],
    ),
    (rule("clients = ['127.0.0.1']\naction = 'accept'"), []),
    (rule("clients = ['0.0.0.0/0', '!127.0.0.1']\naction = 'accept'"), ["rule: mail of this host itself"]),
    ("[[rule]]\naction = 'greylist'", ["rule: mail of this host itself"]),
    (rule("authenticated = true\naction = 'accept'"), ["rule: mail of this host itself"]),
    (rule("clients = ['127.0.0.1']\nhelo = ['a.x']\naction = 'accept'"), ["rule: mail of this host itself"]),
    (rule("clients = ['127.0.0.1']\naction = 'greylist'"), ["rule: mail of this host itself"]),
]


@pytest.mark.parametrize(("text", "wanted"), WARNINGS)
def test_warning_tells_what_a_valid_file_may_get_wrong(tmp_path, text, wanted):
    """A file can be valid and still a mistake; then the daemon starts, and a warning says what follows."""
    found = warnings(tmp_path, text)
    if not any(start.startswith("rule: mail of this host") for start in wanted):
        found = [warning for warning in found if "mail of this host" not in warning]
    assert len(found) == len(wanted)
    for warning, start in zip(found, wanted, strict=True):
        assert warning.startswith(start)
