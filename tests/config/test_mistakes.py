"""What is wrong with a config file: every mistake at once, each with its key and reason."""

import os
import re
import sys
from pathlib import Path

import pytest

from hybridgrey.config import load
from hybridgrey.config.load import ConfigError
from parts.configfile import errors, rule

ERRORS = [
    # file, what is said of it
    ("worker = 3", ["worker: unknown key; did you mean workers?"]),
    ("[greylist]\nmode = 'observe'", ["greylist.mode: unknown key here; did you mean top-level mode?"]),
    (
        "timeout = '2s'",
        ["timeout: unknown key here; did you mean store.timeout or dns.timeout or content.timeout?"],
    ),
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
    ("user = 'no-such-user'", ["user: no user 'no-such-user' on this system"]),
    (
        "listen = 'inet:127.0.0.1:8893'",
        ['listen: must be "inet:PORT@ADDRESS"; you mean "inet:8893@127.0.0.1"?'],
    ),
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
    ("[dns]\nnat64 = '64:ff9b::/96'", ["dns.nat64: must be a list"]),
    (
        "[dns]\nnat64 = ['64:ff9b::/97', '192.0.2.0/24', 3, '64:ff9b::1/96', '2001:db8::/0', '::/96', "
        "'2001:db8:0:0:ff00::/96', '64:ff9b::', 'x']",
        [
            "dns.nat64[1]: 64:ff9b::/97 must have /32, /40, /48, /56, /64 or /96 (RFC 6052 section 2.2)",
            'dns.nat64[2]: must be an IPv6 network, such as "64:ff9b::/96"',
            'dns.nat64[3]: must be a network in quotes, such as "64:ff9b::/96"',
            "dns.nat64[4]: has bits set after its prefix; 64:ff9b::/96 is meant?",
            "dns.nat64[5]: has bits set after its prefix; ::/0 is meant?",
            "dns.nat64[6]: ::/96 holds ::1 or IPv4-mapped addresses, which are no translator's",
            "dns.nat64[7]: 2001:db8:0:0:ff00::/96: bits 64 to 71 must be zero (RFC 6052 section 2.2)",
            "dns.nat64[8]: 64:ff9b::/128 must have /32, /40, /48, /56, /64 or /96 (RFC 6052 section 2.2)",
            'dns.nat64[9]: must be an IPv6 network, such as "64:ff9b::/96"',
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
    (
        "[greylist]\nauto_allow_interval = '31d'\nmax_waiting = -1",
        ["greylist.auto_allow_interval: must be from 0s to 30d", "greylist.max_waiting: must be at least 0"],
    ),
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
    (
        "[spf]\nwidest_ipv4 = 7\nwidest_ipv6 = 129",
        ["spf.widest_ipv4: must be at least 8", "spf.widest_ipv6: must be at most 128"],
    ),
    ("[correspondents]\nlifetime = '1m'", ["correspondents.lifetime: must be from 1h to 3650d"]),
    (
        "[content]\nmax_size = '1g'\ntimeout = 0",
        [
            'content.max_size: must be a size: write a number and k or m, such as "512k"',
            "content.timeout: must be from 100ms to 5m",
        ],
    ),
    ("[content]\nmax_size = '65m'", ["content.max_size: must be from 1k to 64m"]),
    *(
        (
            f"[content]\nscanner = '{scanner}'",
            [
                'content.scanner: must be "spamd:inet:783@127.0.0.1", "spamd:unix:/path" or '
                '"rspamd:http://127.0.0.1:11333"; "": none'
            ],
        )
        for scanner in (
            "spamd",
            "127.0.0.1:783",
            "rspamd:https://h",
            "rspamd:http://h/x",
            "rspamd:http://h:x",
        )
    ),
    (
        "[content]\nscanner = 'spamd:inet:783'",
        ['content.scanner: names no host; write "spamd:inet:783@127.0.0.1"'],
    ),
    ("[content]\nscanner = 'rspamd:http://a:b@h'", ["content.scanner: takes no user or password"]),
    (
        rule("rdns = ['generik', 'none']\nspf = ['ok', 'sotfail']\nby_hand = 'alow'\naction = 'accept'"),
        [
            "rule 1: rdns[1]: must be none, generic or named; did you mean generic?",
            "rule 1: spf[1]: must be pass, fail, softfail, neutral, none, temperror or permerror",
            "rule 1: spf[2]: must be pass, fail, softfail, neutral, none, temperror or permerror; "
            "did you mean softfail?",
            "rule 1: by_hand: must be allow or block; did you mean allow?",
        ],
    ),
    (
        rule("rdns = 'none'\nspf = []\nby_hand = true\ncorrespondent = 'yes'\naction = 'accept'"),
        [
            'rule 1: rdns: must be a list, as ["…"]',
            "rule 1: spf: is an empty list: name an entry, or leave the key out",
            "rule 1: by_hand: must be allow or block, in quotes",
            "rule 1: correspondent: must be true or false, without quotes",
        ],
    ),
    (
        rule("pools = ['192.0.2.1', 'example', '.a.example', 'a b.example', 'file:none']\naction = 'accept'"),
        [
            "rule 1: pools[1]: '192.0.2.1' is no domain that can have an SPF record",
            "rule 1: pools[2]: 'example' is no domain that can have an SPF record",
            "rule 1: pools[3]: '.a.example' is no domain that can have an SPF record",
            "rule 1: pools[4]: 'a b.example' is no host name or .domain",
            "rule 1: pools[5]: file:none does not exist",
        ],
    ),
    (
        rule("score = '4'\naction = 'reject'") + "[content]\nscanner = 'spamd:unix:/s'",
        ['rule 1: score: must be <, <=, > or >= and a number, such as ">=4"'],
    ),
    (
        rule("score = '>=4'\naction = 'reject'"),
        ["rule 1: score: has no use without a scanner: name one in [content]"],
    ),
    (
        rule("dns = ['a.b']\nlearn = true\naction = 'reject'"),
        ["rule 1: learn: has a use with action accept only"],
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
    (
        rule("clients = ['22.1.1.1-22.1.1.2', '!22.1.1.x', '1.2.3.4.5', '*.a.example']\naction = 'accept'"),
        [
            'rule 1: clients[1]: \'22.1.1.1-22.1.1.2\' is a range; write "22.1.1.1", "22.1.1.2"',
            "rule 1: clients[2]: '22.1.1.x' is no whole address or network; write \"22.1.1.0/24\"",
            "rule 1: clients[3]: '1.2.3.4.5' is no address or network: it has 5 numbers, not four",
            "rule 1: clients[4]: '*.a.example': for every name below a domain write \".a.example\"",
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
    ("mode = observe\n", "line 1, column 8: not valid TOML: invalid value; text wants straight quotes"),
    ("mode = \u201cobserve\u201d\n", "text wants straight quotes"),
    (
        "[rule]\nname = 'a'\n[rule]\n",
        "line 3, column 6: not valid TOML: cannot declare twice; a table stands once",
    ),
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
    (tmp_path / "big").write_bytes(b"#" * (load.MAX_BYTES + 1))
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
            load.load(tmp_path / name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a file that not even root can read")
def test_unreadable_file_is_an_error():
    """A file that the system does not let us read is an error with the system's reason."""
    with pytest.raises(ConfigError, match="cannot be read: "):
        load.load(Path("/proc/self/mem"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file_is_an_error(tmp_path):
    """A file that we may not read is an error with the system's reason."""
    (tmp_path / "hg.toml").touch(mode=0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load.load(tmp_path / "hg.toml")
