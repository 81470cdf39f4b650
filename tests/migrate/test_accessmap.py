"""Maps of clients in main.cf: what is taken over of them, with Postfix's own postmap as the judge."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey import address
from hybridgrey.migrate import accessmap
from hybridgrey.migrate.accessmap import Reading
from hybridgrey.policy.match import Index, Kind, parse_entry, parse_file
from parts.laws import examples

FOLDER = Path(tempfile.mkdtemp(prefix="hg-postmap-"))


@pytest.fixture(scope="module", autouse=True)
def _folder():
    """A configuration for postmap, which reads one."""
    (FOLDER / "main.cf").write_text("compatibility_level = 3.6\n")
    yield
    for path in FOLDER.iterdir():
        path.unlink()
    FOLDER.rmdir()


def converted(kind, content, reading=accessmap.SMTPD):
    """What is taken over of a map with this content."""
    return list(accessmap.convert(1, "x", f"{kind}:/map", lambda _path: content, reading))


def index_of(found, content):
    """The clients of the rule that is found, to be asked; None where there is no rule."""
    clients = found[0].table.get("clients") if not found[0].lost else None
    if clients is None:
        return None
    if clients == ["file:/map"]:
        return Index([parse_file(Kind.CLIENT, content)[0]])
    return Index([[parse_entry(Kind.CLIENT, c) for c in clients]])


def let_in(found, content, client, name=None):
    """Whether the rule lets a client in."""
    index = index_of(found, content)
    return index is not None and bool(index.client(address.packed(client), name))


CIDR = [
    # a table, clients that it lets in, clients that it does not, what is said
    ("192.0.2.1 OK\n192.0.2.0/24 REJECT\n", ["192.0.2.1"], ["192.0.2.2"], "line 2: 192.0.2.0/24 REJECT"),
    ("192.0.2.0/24 REJECT\n192.0.2.1 OK\n", [], ["192.0.2.1"], "never reached: line 2"),
    ("192.0.2.9 DUNNO\n192.0.2.0/24 OK\n", ["192.0.2.8"], ["192.0.2.9"], "excluded"),
    (
        "if 192.0.2.0/24\n192.0.2.9 REJECT\n0.0.0.0/0 OK\nendif\n",
        ["192.0.2.8"],
        ["192.0.2.9", "198.51.100.1"],
        "line 2",
    ),
    ("if !192.0.2.0/24\n192.0.0.0/16 OK\nendif\n", ["192.0.3.1"], ["192.0.2.1"], ""),
    ("if 192.0.2.0/24\nIF 192.0.2.0/25\n0.0.0.0/0 OK\nENDIF\nendif\n", ["192.0.2.1"], ["192.0.2.200"], ""),
    ("if 192.0.2.0/33\n198.51.100.1 OK\nendif\n", [], ["198.51.100.1"], "the if in line 1 cannot be read"),
    (
        "if 192.0.2.1/24\n198.51.100.1 REJECT\nendif\n198.51.100.0/24 OK\n",
        ["198.51.100.2"],
        ["198.51.100.1"],
        "bits set after its prefix",
    ),
    ("[2001:db8::]/32 OK\n", ["2001:db8:1::1"], ["2001:db9::1"], ""),
    ("[2001:db8::/32] OK\n[192.0.2.1] OK\n", ["2001:db8:1::1", "192.0.2.1"], ["192.0.2.2"], ""),
    ("192.0.2.1/24 OK\n198.51.100.1 OK\n", ["198.51.100.1"], ["192.0.2.1"], "192.0.2.0/24 is meant?"),
    ("!192.0.2.0/24 OK\n", ["198.51.100.1"], ["192.0.2.1", "2001:db8::1"], ""),
    ("!192.0.2.0/24 REJECT\n0.0.0.0/0 OK\n", ["192.0.2.1"], ["198.51.100.1"], "line 1"),
    ("192.0.2.1 1234567890\n192.0.2.2 permit\n", ["192.0.2.1", "192.0.2.2"], [], ""),
    ("192.0.2.1 550\n192.0.2.2 550 go away\n", [], ["192.0.2.1", "192.0.2.2"], "line 1: 192.0.2.1 550"),
    ("192.0.2.1 permit_mynetworks\n192.0.2.2 OKAY\n", [], ["192.0.2.1", "192.0.2.2"], "line 1"),
    ("192.0.2.1 # OK\n192.0.2.2\n", [], ["192.0.2.1", "192.0.2.2"], "line 2: 192.0.2.2: has no result"),
    ("192.0.2.1 REJECT no\n 192.0.2.2 OK\n", [], ["192.0.2.2"], "line 1"),
    ("192.0.2.1 REJECT no\f\n192.0.2.1 OK\n", [], ["192.0.2.1"], "line 1"),
    ("192.0.2 OK\nmail.example.org OK\n", [], ["192.0.2.1"], "line 2: mail.example.org OK"),
    ("::ffff:192.0.2.0/120 OK\n", [], ["192.0.2.1"], "no client"),
    ("endif\n192.0.2.1 OK\n", ["192.0.2.1"], [], "endif without an if"),
    ("10.0.0.0/8 OK\n10.1.0.0/16 OK\n", ["10.1.0.1"], ["11.0.0.1"], ""),
]


@pytest.mark.parametrize(("content", "inside", "outside", "said"), CIDR)
def test_cidr_table(content, inside, outside, said):
    """A cidr table lets in whom Postfix lets in, and the rest is told with its reason."""
    found = converted("cidr", content)
    for client in inside:
        assert let_in(found, content, client), found
    for client in outside:
        assert not let_in(found, content, client), found
    assert said in " ".join(found[0].notes)
    assert let_in(found, content, "203.0.113.77") is ("!192.0.2.0/24 OK" in content)


INDEXED = [
    # a table, clients (with their names) that it lets in, those that it does not, what is said
    ("192.0.2 OK\n192.0.2.9 REJECT\n", [("192.0.2.1", "")], [("192.0.2.9", "")], "line 2"),
    ("10.1.2 OK\n10.1 REJECT\n10 OK\n", [("10.1.2.3", ""), ("10.9.9.9", "")], [("10.1.9.9", "")], "line 2"),
    ("192.0.2.0/24 OK\n", [], [("192.0.2.0", "")], "Postfix never looks this up"),
    ("192.0.2.1-192.0.2.9 OK\n192.0.3.x OK\n", [], [("192.0.2.1", ""), ("192.0.3.1", "")], "line 2"),
    ("192.0.02.1 OK\n", [], [("192.0.2.1", "")], "Postfix never looks this up"),
    ("2001:db8:1 OK\n", [("2001:db8:1::5", "")], [("2001:db8:2::5", "")], ""),
    ("2001:db8:0 OK\n2001:0db8::1 OK\n", [], [("2001:db8::1", "")], "Postfix never looks this up"),
    ("2001:DB8::1 OK\n", [("2001:db8::1", "")], [("2001:db8::2", "")], ""),
    ("example.org OK\nbad.example.org REJECT\n", [("198.51.100.1", "a.example.org")],
     [("198.51.100.1", "x.bad.example.org")], "line 2"),
    ("192.0.2 OK\nevil.example REJECT\n", [("192.0.2.1", ""), ("192.0.2.1", "a.example")],
     [("192.0.2.1", "a.evil.example")], "line 2"),
    ("192.0.2 OK\nunknown REJECT\nexample.org OK\n", [("192.0.2.1", "example.org")],
     [("192.0.2.1", ""), ("192.0.2.1", "b.example")], "without a name has no counterpart"),
    ("unknown OK\n", [], [("192.0.2.1", ""), ("192.0.2.1", "unknown")], "line 1"),
    ("org OK\nbad.org REJECT\ngood.bad.org OK\n", [("192.0.2.1", "a.org")],
     [("192.0.2.1", "good.bad.org")], "unlike in Postfix: good.bad.org, .good.bad.org"),
    (".example.org OK\n", [], [("192.0.2.1", "a.example.org")], "Postfix never looks this up"),
    ("192.0.2.1 REJECT\n192.0.2.1 OK\n", [], [("192.0.2.1", "")], "line 1"),
    ("a@b.example OK\n192.0.2.1 OK\n", [("192.0.2.1", "")], [], "line 1"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "inside", "outside", "said"), INDEXED)
def test_indexed_table(content, inside, outside, said):
    """A hash table lets in whom Postfix lets in, by name first, by the longest key; the rest is told."""
    found = converted("hash", content)
    for client, name in inside:
        assert let_in(found, content, client, name or None), found
    for client, name in outside:
        assert not let_in(found, content, client, name or None), found
    assert said in " ".join(found[0].notes)


def test_names_below():
    """Where parent_domain_matches_subdomains says it, a name is itself and .domain what is below it."""
    content = "mail.example.org OK\n.example.net OK\n"
    found = converted("hash", content, Reading(below=False))
    assert found[0].table["clients"] == ["mail.example.org", ".example.net"]


def test_postscreen():
    """postscreen takes permit only, and whole addresses only of a table that is no cidr table."""
    content = "192.0.2.1 permit\n192.0.2.2 OK\n198.51.100 permit\nmail.example.org permit\n"
    found = converted("hash", content, Reading(postscreen=True))
    assert found[0].table["clients"] == ["192.0.2.1/32"]
    content = "192.0.2.0/24 permit\n198.51.100.0/24 OK\n"
    found = converted("cidr", content, Reading(postscreen=True))
    assert found[0].table["clients"] == ["192.0.2.0/24"]


@pytest.mark.parametrize(
    ("table", "clients"),
    [
        ("cidr:{{192.0.2.1 OK}, {192.0.2.0/24 REJECT}}", ["192.0.2.1/32"]),
        ("cidr:{ {if 192.0.2.0/24} {0.0.0.0/0 OK} {endif} }", ["192.0.2.0/24"]),
        ("cidr:{\n {192.0.2.1 OK}\n {# note}\n {[2001:db8::]/32\nOK} }", ["192.0.2.1/32", "2001:db8::/32"]),
        ("inline:{192.0.2.1=OK, {192.0.2.2 = REJECT no}}", ["192.0.2.1/32"]),
        ("proxy:hash:/map", ["file:/map"]),
    ],
)  # fmt: skip
def test_in_line_tables(table, clients):
    """A table within main.cf is read as one of a file is."""
    (found,) = accessmap.convert(1, "x", table, lambda _path: "192.0.2.1 OK\n")
    assert found.table["clients"] == clients


def test_file_as_it_is():
    """A map whose rows all let in, and mean here what they mean there, is named and not written out."""
    for kind, content in [
        ("hash", "192.0.2 OK\nexample.org permit\n2001:db8:1 OK some words\n"),
        ("cidr", "192.0.2.0/24 OK\n2001:db8::/32 permit\n"),
    ]:
        assert converted(kind, content)[0].table["clients"] == ["file:/map"]
    for kind, content in [
        ("hash", "192.0.2.0/24 OK\n192.0.3.1 OK"),
        ("cidr", "192.0.2 OK\n192.0.3.1 OK"),
        ("hash", "192.0.2.1 # OK\n192.0.3.1 OK"),
        ("hash", "192.0.3.1 OK\n 192.0.2.1 OK\n"),
        ("hash", "192.0.3.1 OK\n!192.0.2.1 OK\n"),
    ]:
        assert not {"file:/map"} & set(converted(kind, content)[0].table["clients"])


@pytest.mark.slow
def test_a_large_table():
    """A hundred thousand rows with holes are read in one sweep."""
    rows = [f"{ipaddress.IPv4Address(n * 512)}/24 {'OK' if n % 3 else 'REJECT'}" for n in range(100_000)]
    found = converted("cidr", "\n".join(rows))
    assert "too many to write out" in found[0].notes[-1]
    assert len(found[0].notes) < 30


NETWORKS = st.sampled_from(
    [
        "192.0.2.0/24", "192.0.2.0/25", "192.0.2.128/25", "192.0.2.1", "192.0.2.129", "192.0.0.0/16",
        "0.0.0.0/0", "192.0.2.1/24", "::/0", "2001:db8::/32", "2001:db8::1", "[2001:db8:1::]/48",
        "[192.0.2.0/24]", "192.0.2", "x", "192.0.2.0/33", "2001:DB8::/33",
]
)  # fmt: skip
RESULTS = st.sampled_from(["OK", "ok now", "REJECT", "DUNNO", "permit", "12345", "550 no", "", "defer"])
LINES = st.one_of(
    st.builds("{} {}".format, NETWORKS, RESULTS),
    st.builds("!{} {}".format, NETWORKS, RESULTS),
    st.builds("! ! {} {}".format, NETWORKS, RESULTS),
    st.builds("if {}".format, NETWORKS),
    st.builds("IF !{}".format, NETWORKS),
    st.sampled_from(["endif", "ENDIF x", "", "# 192.0.2.1 OK", " goes on", "if", "endif"]),
)
CLIENTS = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.129",
    "192.0.2.200",
    "192.0.3.1",
    "198.51.100.1",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:1::1",
    "2001:db8:8000::1",
    "2001:db9::1",
]


def asked(kind, content, keys):
    """What Postfix finds under each key."""
    (FOLDER / "map").write_text(content)
    os.utime(FOLDER / "map", (1, 1))  # a file that was just written is read by Postfix until it rests
    command = ["postmap", "-c", FOLDER, "-q", "-", f"{kind}:{FOLDER}/map"]
    done = subprocess.run(command, input="\n".join(keys) + "\n", capture_output=True, text=True, check=False)
    return dict(line.split("\t", 1) for line in done.stdout.splitlines())


@pytest.mark.program
@settings(max_examples=examples(150), deadline=None)
@given(st.lists(LINES, max_size=9))
def test_cidr_tables_by_postmap(rows):
    """Any cidr table lets in the same clients as in Postfix; fewer only where a condition is damaged."""
    content = "\n".join(rows) + "\n"
    answers = asked("cidr", content, CLIENTS)
    found = converted("cidr", content)
    damaged = "cannot be read" in " ".join(found[0].notes)
    for client in CLIENTS:
        theirs = accessmap.SMTPD.lets_in(answers.get(client) or "dunno")
        ours = let_in(found, content, client)
        assert ours == theirs or (damaged and not ours), (client, answers.get(client), found)


KEYS = st.sampled_from(
    [
        "192",
        "192.0",
        "192.0.2",
        "192.0.2.1",
        "192.0.2.129",
        "192.0.2.0/24",
        "2001:db8",
        "2001:db8:1",
        "2001:db8::1",
        "2001:db8:0",
        "2001:DB8:8000",
        "example.org",
        "a.example.org",
        "b.a.example.org",
        ".a.example.org",
        "org",
        "unknown",
        "Example.net",
        "192.0.02",
        "[192.0.2.1]",
    ]
)
HOSTS = [
    "unknown",
    "example.org",
    "a.example.org",
    "b.a.example.org",
    "c.b.a.example.org",
    "example.net",
    "x.y",
]


def looked_up(client, name):
    """The keys that smtpd looks up, in its order (check_namadr_access in smtpd_check.c)."""
    keys = [name]
    while "." in name:
        name = name.partition(".")[2]
        keys.append(name)
    sign = ":" if ":" in client else "."
    keys.append(client)
    while sign in client:
        client = client.rpartition(sign)[0]
        keys.append(client)
    return keys


@pytest.mark.program
@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.builds("{} {}".format, KEYS, RESULTS), max_size=8))
def test_indexed_tables_by_postmap(rows):
    """Of any table of keys nobody is let in whom Postfix does not let in, and whoever is lost is told."""
    content = "\n".join(rows) + "\n"
    keys = sorted({key for c in CLIENTS for h in HOSTS for key in looked_up(c, h)})
    answers = asked("texthash", content, keys)
    found = converted("texthash", content)
    for client in CLIENTS:
        for host in HOSTS:
            theirs = next((answers[k] for k in looked_up(client, host) if k in answers), "dunno")
            ours = let_in(found, content, client, None if host == "unknown" else host)
            good = accessmap.SMTPD.lets_in(theirs)
            assert good or not ours, (client, host, theirs, found)
            assert ours or not good or found[0].notes, (client, host, theirs, found)
