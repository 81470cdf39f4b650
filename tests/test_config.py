"""The config file: what it means, what is wrong with it, and what is never shown of it."""

import os
import re
import sys
import tomllib
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hybridgrey import config, problems
from hybridgrey.config import Config, ConfigError
from hybridgrey.match import Entry
from hybridgrey.policy import Action
from hybridgrey.ruleset import RuleTable
from hybridgrey.settings import Settings, Zone

SAMPLE = Path(__file__).parent.parent / "etc" / "hybridgrey.toml"
CATCH_ALL = '\n[[rule]]\nname = "the rest"\naction = "greylist"\n'
KEY = "0123456789abcdefghijklmnop"

# Some tests read hundreds of files; each writes its own, so the folder may be shared between examples.
fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)


def load(folder: Path, text: str | bytes) -> Config:
    """Load a file with this text."""
    path = folder / "hg.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.load(path)


def errors(folder: Path, text: str | bytes) -> list[str]:
    """What is wrong with this text, without the file's name."""
    with pytest.raises(ConfigError) as error:
        load(folder, text)
    prefix = f"{folder / 'hg.toml'}: "
    assert all(p.startswith(prefix) and p.isprintable() for p in error.value.problems)
    return [p.removeprefix(prefix) for p in error.value.problems]


def warnings(folder: Path, text: str) -> list[str]:
    """The warnings for a valid text, without the file's name."""
    return [w.removeprefix(f"{folder / 'hg.toml'}: ") for w in load(folder, text).warnings]


def rule(text: str, then: str = CATCH_ALL) -> str:
    """A file with this rule and a catch-all."""
    return f"[[rule]]\n{text}\n{then}"


# Defaults and the sample.


def test_empty_file_is_the_default(tmp_path):
    """An empty file means the same as no file at all, and there is nothing to warn of."""
    loaded = load(tmp_path, "")
    assert loaded.model_copy(update={"path": None}) == config.default()
    assert loaded.warnings == ()


def test_sample_is_the_default():
    """The sample spells out what an empty file means, word for word."""
    assert tomllib.loads(SAMPLE.read_text()) | {"zones": {}} == config.default().shown
    loaded = config.load(SAMPLE)
    assert loaded.model_copy(update={"path": None}) == config.default()
    assert loaded.warnings == ()


def all_of_sample() -> str:
    """The sample with its commented examples switched on."""
    return re.sub(r"(?m)^# (\[.*\]|[a-z_0-9]+ = .*)$", r"\1", SAMPLE.read_text())


def test_sample_names_every_key():
    """No key can be added without a place in the sample."""
    sample = tomllib.loads(all_of_sample())
    assert sample.keys() == {*Settings.model_fields, "rule"}
    for name in Settings.model_fields:
        section = problems.section_of(name)
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
    ("[greylist]\ndelay = 90", lambda c: c.greylist.delay, 90),
    ('[greylist]\nlifetime = "1w"', lambda c: c.greylist.lifetime, 604800),
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
    loaded = config.default()
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


# Errors.

ERRORS = [
    # file, what is said of it
    ("worker = 3", ["worker: unknown key; did you mean workers?"]),
    ("[greylist]\nmode = 'observe'", ["greylist.mode: unknown key here; did you mean top-level mode?"]),
    ("timeout = '2s'", ["timeout: unknown key here; did you mean store.timeout or dns.timeout?"]),
    ("[xyzzy]\na = 1", ["xyzzy: unknown key"]),
    ('"a b" = 1', ['"a b": unknown key']),
    ('"a\\nb" = 1', ['"a\\x0ab": unknown key']),
    ("workers = '3'", ["workers: must be a whole number, without quotes"]),
    ("workers = true", ["workers: must be a whole number, without quotes"]),
    ("workers = -1", ["workers: must be at least 0"]),
    ("pin_workers = 1", ["pin_workers: must be true or false, without quotes"]),
    ("hostname = 1979-05-27", ["hostname: must be a string, in quotes"]),
    ("hostname = 'a b'", ["hostname: is no host name"]),
    ('user = "a\\u0000"', ["user: holds a control character"]),
    ("mode = 'off'", ['mode: must be "enforce" or "observe"']),
    ("socket_mode = 660", ['socket_mode: must be an octal mode in quotes, such as "0660"']),
    ("socket_mode = '0888'", ['socket_mode: must be an octal mode in quotes, such as "0660"']),
    ("store = 'redis://h'", ["store: must be a table"]),
    ("store = []", ["store: must be a table"]),
    ("zones = 3", ["zones: must be a table"]),
    ("[zones]\nz = 3", ["zones.z: must be a table"]),
    (
        "[zones]\n'a b' = {}",
        ['zones."a b": bad label in a domain name at ">a b<"'],
    ),
    ("[zones.a]\n[zones.A]", ["zones.A: the same list stands here twice"]),
    ("[zones.z]\nhealth = true", ['zones.z.health: must be "on" or "off"']),
    ("[zones.z]\nlisted = 'x'", ['zones.z.listed: must be an address such as "127.0.0.2"']),
    (
        "[zones.z]\nerror_codes = ['127.0.0.1', '1.2.300.4', 3]",
        [
            'zones.z.error_codes[2]: number over 255 at "1.2.>300<.4"',
            "zones.z.error_codes[3]: must be a string",
        ],
    ),
    ("[zones.z]\nerror_codes = '127.0.0.1'", ["zones.z.error_codes: must be a list"]),
    ("[dns]\nnameservers = '127.0.0.1'", ["dns.nameservers: must be a list"]),
    (
        "[dns]\nnameservers = ['ns.example', 3]",
        [
            'dns.nameservers[1]: must be an address, such as "127.0.0.1", "127.0.0.1:5353" or "[::1]:53"',
            "dns.nameservers[2]: must be an address in quotes",
        ],
    ),
    ("[dns]\ntimeout = '0s'", ["dns.timeout: must be from 1ms to 30s"]),
    ("[dns]\ntimeout = '1m'", ["dns.timeout: must be from 1ms to 30s"]),
    ("[greylist]\ndelay = '500ms'", ["greylist.delay: must be from 1s to 1d"]),
    ("[greylist]\ndelay = '1s500ms'", ["greylist.delay: must be whole seconds"]),
    (
        "[greylist]\ndelay = '1h'\nretry_window = '1h'",
        ["greylist.retry_window: must be longer than delay (1h)"],
    ),
    ("[greylist]\ndelay = '1h'\nlifetime = '30m'", ["greylist.lifetime: must be longer than delay (1h)"]),
    ("[greylist]\nipv4_prefix = 33", ["greylist.ipv4_prefix: must be at most 32"]),
    ("[greylist]\nipv6_prefix = -1", ["greylist.ipv6_prefix: must be at least 0"]),
    ("[greylist]\ncode = '550'", ['greylist.code: must be "450" or "451"']),
    ("[greylist]\ntext = '{name}'", ["greylist.text: may hold braces only as {seconds}"]),
    ("[greylist]\ntext = '{seconds:d}'", ["greylist.text: may hold braces only as {seconds}"]),
    ("[greylist]\ntext = ''", ["greylist.text: must have 1 to 400 characters"]),
    (
        '[greylist]\ntext = "a\\nb"',
        ["greylist.text: must be printable ASCII on one line (RFC 5321 section 4.2)"],
    ),
    (
        "[greylist]\ntext = '5.2.0 no'",
        ["greylist.text: the enhanced code must be 4.x.y, then a space and the text (RFC 3463)"],
    ),
    (
        "[greylist]\ntext = '450 4.2.0 no'",
        [
            "greylist.text: must not begin with a reply code; "
            "only an enhanced code such as 4.7.1 may stand there"
        ],
    ),
    ("[metrics]\nlisten = 9893", ["metrics.listen: must be a string"]),
    ("[log]\nlevel = 'loud'", ['log.level: must be "debug", "info", "warning", "error" or "critical"']),
    ("rule = []", ["rule: is empty: leave it out for the default rules"]),
    ("[rule]\naction = 'accept'", ["rule: must be written [[rule]], with two brackets"]),
    ("rule = [3]", ["rule 1: must be a table"]),
    ("[[rule]]\nname = 'x'", ['rule "x": action: is missing']),
    (
        "[[rule]]\nname = ' '\naction = 'accept'",
        ["rule 1: name: is empty: give a name, or leave the key out"],
    ),
    (
        "[[rule]]\naction = 'greylst'",
        ["rule 1: action: must be accept, reject, tempfail, greylist or none; did you mean greylist?"],
    ),
    (
        "[[rule]]\naction = []",
        ["rule 1: action: must be accept, reject, tempfail, greylist or none, in quotes"],
    ),
    (
        rule("clients = []\naction = 'accept'"),
        ["rule 1: clients: is an empty list: name an entry, or leave the key out"],
    ),
    (rule("clients = '192.0.2.1'\naction = 'accept'"), ['rule 1: clients: must be a list, as ["…"]']),
    (
        rule("dns = []\naction = 'accept'"),
        ["rule 1: dns: is an empty list: name an entry, or leave the key out"],
    ),
    (
        rule("dns = ['a.b=127.0.0.[4..1]', 'a.b=[1-255].0.0.0', 'a.b=1.2.3', 7]\naction = 'accept'"),
        [
            'rule 1: dns[1]: a range runs backwards at "a.b=127.0.0.[>4..1<]"',
            'rule 1: dns[2]: ";", ".." or "]" is missing at "a.b=[1>-<255].0.0.0"',
            'rule 1: dns[3]: four parts are needed, a dot between them at "a.b=1.2.3><"',
            "rule 1: dns[4]: must be a string, in quotes",
        ],
    ),
    (
        rule("clients = ['file:none']\nsenders = ['file:allow_clients']\naction = 'accept'"),
        [
            "rule 1: clients[1]: file:none does not exist",
            "rule 1: senders[1]: file:allow_clients does not exist",
        ],
    ),
    (rule("clients = ['file:.']\naction = 'accept'"), ["rule 1: clients[1]: file:. is a directory"]),
    (rule("clients = ['file:']\naction = 'accept'"), ["rule 1: clients[1]: file: needs the path of a file"]),
    (
        rule('clients = ["file:a\\u0000b"]\naction = "accept"'),
        ["rule 1: clients[1]: file: needs the path of a file"],
    ),
    (rule("threshold = 2\naction = 'reject'"), ["rule 1: threshold: has no use without dns"]),
    (
        rule("dns = ['a.b*2', 'c.d*-5']\nthreshold = 3\naction = 'reject'"),
        ["rule 1: threshold: can never be reached: the weights of dns sum up to 2 at most"],
    ),
    (
        rule("dns = ['a.b*-1']\naction = 'reject'"),
        ["rule 1: threshold: can never be reached: the weights of dns sum up to 0 at most"],
    ),
    (rule("dns = ['a.b']\nthreshold = 0\naction = 'reject'"), ["rule 1: threshold: must be at least 1"]),
    (
        rule("dns = ['a.b']\ndelay = '1m'\naction = 'reject'"),
        ["rule 1: delay: has a use with action greylist only"],
    ),
    (rule("dns = ['a.b']\ntext = 'x'\naction = 'accept'"), ["rule 1: text: has no use with action accept"]),
    (
        rule("dns = ['a.b']\ntext = '4.7.1 x'\naction = 'reject'"),
        ["rule 1: text: the enhanced code must be 5.x.y, then a space and the text (RFC 3463)"],
    ),
    (rule("dns = ['a.b']\ntext = '{seconds}'\naction = 'reject'"), ["rule 1: text: may hold no braces"]),
    (
        rule("dns = ['a.b']\ndelay = '2h'\naction = 'greylist'") + "[greylist]\nretry_window = '1h'",
        ["rule 1: delay: must be shorter than greylist.retry_window (1h)"],
    ),
    (
        rule("name = 'the rest'\ndns = ['a.b']\naction = 'reject'"),
        ['rule "the rest": name: the name stands at rule 1 already'],
    ),
    (
        rule("action = 'accept'"),
        ['rule "the rest": can never be reached: rule "rule 1" before it decides everything'],
    ),
    # With a misspelt condition the first rule is wrong, and not those after it.
    (
        rule("client = ['192.0.2.1']\naction = 'accept'"),
        ["rule 1: client: unknown key; did you mean clients?"],
    ),
]


@pytest.mark.parametrize(("text", "wanted"), ERRORS)
def test_error_names_key_and_reason(tmp_path, text, wanted):
    """Every mistake is named with its key, what is wrong, and for a pattern where in it."""
    assert errors(tmp_path, text) == wanted


def test_all_errors_at_once_in_order(tmp_path):
    """Mistakes of all kinds are told in one go, in the order of the file."""
    singles = [(t, w) for t, w in ERRORS if not re.search(r"rule|\[|timeout = '2s'|store|zones", t)]
    seen, text, wanted = set(), "", []
    for one, said in singles:
        key = one.partition(" =")[0]
        if key not in seen:
            seen.add(key)
            text += one + "\n"
            wanted += said
    (tmp_path / "f").write_text("10.0.0.0/8 REJECT\nok.example\n10.0.0.1/8\n")
    text += "[dns]\ntimeout = 'x'\n" + rule(
        "clients = ['file:f', 'a b']\nthreshold = 2\naction = 'none'\nnam = 1", ""
    )
    found = errors(tmp_path, text)
    assert len(wanted) > 6
    assert found[: len(wanted)] == wanted
    assert [f.partition(":")[0] for f in found[len(wanted) :]] == ["dns.timeout", *["rule 1"] * 5]
    assert "clients[1]: file:f: line 1: " in found[-5]
    assert "clients[1]: file:f: line 3: " in found[-4]


SYNTAX = [
    # file, what is said of it
    ("listen = \n", "line 1, column 10: not valid TOML: invalid value"),
    ("a = 1\na = 2\n", "line 2, column 6: not valid TOML: cannot overwrite a value"),
    ("[a]\n[a]", "line 2, column 3: not valid TOML: cannot declare twice"),
    ("x = 1\na = [1,", "line 2, column 8 (end of file)"),
    ("a = " + "[" * 5000, "nested too deeply"),
    ("a = " + "{b=" * 5000, "nested too deeply"),
    ("a = " + "9" * 5000, "a number is too long"),
    (b"a = '\xff'", "is not UTF-8 text: bad byte in line 1"),
    ("a = 1\n".encode("utf-16"), "is not UTF-8 text"),
    (b"\0", "line 1, column 1"),
]


@pytest.mark.parametrize(("text", "wanted"), SYNTAX)
def test_what_is_no_toml_is_one_error(tmp_path, text, wanted):
    """A file that cannot be parsed is one error, with its place."""
    (error,) = errors(tmp_path, text)
    assert wanted in error


def test_what_is_no_file_is_an_error(tmp_path):
    """A missing file, a folder, a pipe, a loop of links and a huge file are told apart."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "big").write_bytes(b"#" * (config.MAX_BYTES + 1))
    for name, wanted in [
        ("none", "does not exist"),
        ("", "is a directory"),
        ("pipe", "is no regular file"),
        ("loop", "cannot be read: "),
        ("big", "is larger than "),
        ("none/hg.toml", "does not exist"),
        ("big/hg.toml", "cannot be read: Not a directory"),
        ("a" * 300, "cannot be read: File name too long"),
    ]:
        with pytest.raises(ConfigError, match=wanted):
            config.load(tmp_path / name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a file that not even root can read")
def test_unreadable_file_is_an_error():
    """A file that the system does not let us read is an error with the system's reason."""
    with pytest.raises(ConfigError, match="cannot be read: "):
        config.load(Path("/proc/self/mem"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_an_error(tmp_path):
    """A file that we may not read is an error with the system's reason."""
    (tmp_path / "hg.toml").touch(mode=0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        config.load(tmp_path / "hg.toml")


# Warnings.

WARNINGS = [
    # file, what is said of it
    (rule("clients = ['192.0.2.1']\naction = 'accept'", ""), ["rule: the last rule has conditions"]),
    (rule("action = 'none'", ""), ["rule: the last rule has conditions"]),
    (rule("clients = ['0.0.0.0/0', '::/0']\naction = 'greylist'", ""), []),
    (
        rule(
            "name = 'w'\ndns = ['w.x']\naction = 'accept'",
            rule("name = 'b'\ndns = ['b.x']\naction = 'reject'"),
        ),
        ['rule "b": a client on the lists of rule "w" before it is accepted'],
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
    ("user = 'no-such-user'", ["user: no such user on this host"]),
    ("socket_group = 'no-such-group'", ["socket_group: no such group on this host"]),
    ("user = 'root'", []),
    ("[greylist]\nipv4_prefix = 8\nipv6_prefix = 16", ["greylist.ipv4_prefix: ", "greylist.ipv6_prefix: "]),
    ("[greylist]\nlifetime = '1d'", ["greylist.lifetime: "]),
    (
        rule(f"dns = ['{KEY}.zen.dq.example']\naction = 'reject'"),
        ['zones."********.zen.dq.example": the name seems to hold a key'],
    ),
]


@pytest.mark.parametrize(("text", "wanted"), WARNINGS)
def test_warning_tells_what_a_valid_file_may_get_wrong(tmp_path, text, wanted):
    """A file can be valid and still a mistake; then the daemon starts, and a warning says what follows."""
    found = warnings(tmp_path, text)
    assert len(found) == len(wanted)
    for warning, start in zip(found, wanted, strict=True):
        assert warning.startswith(start)


# Secrets.

SECRET_FILE = f"""
[store]
url = "redis://user:hunter2@127.0.0.1:6379/0"
key_secret = "correct horse"
[zones."{KEY}.zen.dq.example"]
label = "zen.example"
[zones."other-key-of-ours.zen.dq.example"]
label = "zen.example"
[[rule]]
name = "blocklists"
dns = ["{KEY}.zen.dq.example=127.0.0.2", "other-key-of-ours.zen.dq.example"]
action = "reject"
[[rule]]
action = "greylist"
"""
SECRETS = (KEY, "hunter2", "correct horse", "other-key-of-ours")


def test_secrets_are_not_shown(tmp_path):
    """What is shown has secrets masked and zones by their labels; the values themselves are intact."""
    loaded = load(tmp_path, SECRET_FILE)
    shown = loaded.shown
    assert shown["store"]["url"] == "redis://user:********@127.0.0.1:6379/0"
    assert shown["store"]["key_secret"] == "********"
    assert list(shown["zones"]) == ["zen.example", "zen.example (2)"]
    assert shown["rule"][0]["dns"] == ["zen.example=127.0.0.2", "zen.example"]
    assert not [s for s in SECRETS if s in f"{loaded.warnings} {shown}"]
    assert not [s for s in ("hunter2", "correct horse") if s in repr(loaded)]
    assert loaded.store.url.get_secret_value() == "redis://user:hunter2@127.0.0.1:6379/0"
    assert loaded.rules[0].lists[0].zone == f"{KEY}.zen.dq.example"


BROKEN_SECRETS = [
    SECRET_FILE.replace("redis:", "reids:"),
    SECRET_FILE.replace("redis://", ""),
    SECRET_FILE.replace("hunter2@", "hunter2/@"),
    SECRET_FILE.replace(":6379", ":hunter2"),
    SECRET_FILE.replace("correct horse", 'correct horse" "'),
    SECRET_FILE.replace('"correct horse"', '["correct horse"]'),
    SECRET_FILE.replace("key_secret", "keysecret"),
    SECRET_FILE.replace("label", "lable"),
    SECRET_FILE.replace("label", "bogus = 1\nlabel"),
    SECRET_FILE.replace('label = "zen.example"', "label = 3"),
    SECRET_FILE.replace("127.0.0.2", "127.0.0.300"),
    SECRET_FILE.replace("dq.example", "dq..example"),
    SECRET_FILE.replace("dq.example", "dq!.example"),
    SECRET_FILE + f'[zones."{KEY}.zen.dq.example"]',
    SECRET_FILE + f'[zones."{KEY}.zen.dq.example."]',
    SECRET_FILE.replace("dns =", "clients ="),
    SECRET_FILE.replace("dns =", f'helo = ["{KEY} x"]\ndns ='),
]


@pytest.mark.parametrize("text", BROKEN_SECRETS)
def test_error_never_holds_a_secret(tmp_path, text):
    """Passwords and list keys are in no error, wherever the mistake is, nor in what led to it."""
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert not [s for s in SECRETS if s in str(error.value).lower()]
    assert error.value.__context__ is None


# Whatever stands in the file.


def told(folder: Path, text: str | bytes) -> str:
    """All that is said of a file, whether it is valid or not; anything but a ConfigError fails the test."""
    try:
        return "\n".join(load(folder, text).warnings)
    except ConfigError as e:
        assert e.problems
        assert all(p.isprintable() for p in e.problems)
        return "\n".join(e.problems)


@fuzz
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_any_file_is_read_or_refused(tmp_path, text):
    """Whatever stands in the file, it is a configuration or a list of errors."""
    told(tmp_path, text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))


def _keys(model):
    return st.sampled_from([*model.model_fields, "bogus"])


_scalar = st.one_of(
    st.text(max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(),
    st.datetimes(),
    st.sampled_from(
        ["1s", "accept", "none", "file:f", "!file:f", "a.b*2", "127.0.0.1", "::1", "!", "file:hg.toml"]
    ),
)
_value = st.one_of(
    _scalar, st.lists(_scalar, max_size=3), st.dictionaries(st.text(max_size=5), _scalar, max_size=2)
)
_section = {
    name: st.one_of(_value, st.dictionaries(_keys(model), _value, max_size=4))
    for name in Settings.model_fields
    if (model := problems.section_of(name))
}
_tables = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(Settings.model_fields, _value)
    | _section
    | {
        "zones": st.one_of(
            _value, st.dictionaries(st.text(max_size=8), st.dictionaries(_keys(Zone), _value))
        ),
        "rule": st.one_of(
            _value, st.lists(st.one_of(_value, st.dictionaries(_keys(RuleTable), _value)), max_size=4)
        ),
        "bogus": _value,
    },
)


@fuzz
@given(_tables)
def test_any_values_are_read_or_refused(tmp_path, tables):
    """Values of every type at every key are a configuration or a list of errors."""
    told(tmp_path, tomli_w.dumps(tables).encode(errors="surrogatepass"))


@fuzz
@given(st.data())
def test_mutated_file_does_not_give_secrets_away(tmp_path, data):
    """However a file with secrets is garbled, what is said of it does not hold them."""
    text = SECRET_FILE
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.sampled_from([0, 1, 2, 8]))
        piece = data.draw(
            st.sampled_from(["", '"', "'", "\n", "]", "[", "=", "@", "/", ":", ".", "x", "\\", "#", "\0"])
        )
        text = text[:at] + piece + text[at + cut :]
    said = told(tmp_path, text)
    # A list key that looks like a word is a secret by its label alone, and that may be cut away.
    assert not [s for s in SECRETS if s in said and s != "other-key-of-ours"]
