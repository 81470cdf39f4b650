"""``hybridgrey allow``, ``block``, ``unlist``, ``entries`` and ``expect`` as processes, on a real store."""

from __future__ import annotations

import functools
import json
import time

import pytest

from hybridgrey.hand import expected, register
from parts.base import LOOPBACK, free_port
from parts.commandline import in_terminal, run

RULES = [
    {"name": "hand in", "by_hand": "allow", "action": "accept"},
    {"name": "hand out", "by_hand": "block", "action": "reject"},
    {"name": "rest", "action": "greylist"},
]


@pytest.fixture
def write(write):
    """With rules that look at entries."""
    return functools.partial(write, hostname="mx1.example.org", rule=RULES)


@pytest.fixture
def config(server, write):
    """The config of an empty store."""
    with server.client() as client:
        client.flushall()
    return write(server.unix_url)


def done(*words, status=0, **more):
    """A command that ends with this status."""
    result = run(*words, **more)
    assert result.status == status, result
    return result


def listed(config, *words):
    """What `entries --json` prints."""
    return [json.loads(line) for line in done("entries", "-c", config, "--json", *words).lines]


def brief(config, *words):
    """The same in few words."""
    return [f"{e['kind']} {e['of']} {e['subject']}" for e in listed(config, *words)]


def test_an_entry_says_what_who_when_and_why(config):
    """As it was typed, by the login name that is behind sudo, on this host."""
    before = int(time.time())
    words = ("192.0.2.0/24", "198.51.100.7", "--for", "30d", "--comment", "dictionary  attack")
    made = done("block", "-c", config, *words, environment={"SUDO_USER": "ann"})
    assert made.lines[0].startswith("blocked: client 192.0.2.0/24, until ")
    assert made.lines[-1] == "all hosts follow within 2 seconds"
    one, two = listed(config)
    assert (one["subject"], two["subject"]) == ("192.0.2.0/24", "198.51.100.7")
    assert {k: one[k] for k in ("kind", "of", "who", "host", "comment")} == {
        "kind": "block",
        "of": "client",
        "who": "ann",
        "host": "mx1.example.org",
        "comment": "dictionary attack",
    }
    assert before <= one["since"] <= time.time()
    assert one["until"] == one["since"] + 30 * 86400


def test_the_later_replaces_the_earlier(config):
    """Of the same subject, in whatever form it was typed; the reply says what it was."""
    done("block", "-c", config, "2001:DB8::1", environment={"SUDO_USER": "ann"})
    made = done("allow", "-c", config, "2001:db8:0::1/128", environment={"SUDO_USER": "bob"})
    assert (
        "it replaces: blocked: client 2001:db8::1, until unlisted, by ann on mx1.example.org" in made.output
    )
    assert brief(config) == ["allow client 2001:db8::1"]
    assert listed(config)[0]["until"] is None


def test_senders_and_recipients(config):
    """One a command; a note says what an allowed sender needs."""
    made = done("allow", "-c", config, "--from", "News@Example.ORG")
    assert "only where SPF passes" in made.output
    done("block", "-c", config, "--from", "", "--yes")
    done("block", "-c", config, "--to", "left@example.net")
    assert brief(config) == [
        "block sender <>",
        "allow sender news@example.org",
        "block recipient left@example.net",
    ]


def test_unlist_takes_back(config):
    """In whatever form; status 1 when there is no such entry, and the others are taken back all the same."""
    done("block", "-c", config, "192.0.2.1", "192.0.2.2")
    result = done("unlist", "-c", config, "192.0.2.1/32", "192.0.2.9", status=1)
    assert "no longer: blocked: client 192.0.2.1" in result.output
    assert "no entry for client 192.0.2.9" in result.error
    assert brief(config) == ["block client 192.0.2.2"]
    done("unlist", "-c", config, "192.0.2.2")
    assert "no entries by hand" in done("entries", "-c", config, status=1).error


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("192.0.2.7",), ["192.0.2.0/24", "192.0.2.7"]),
        (("192.0.0.0/16",), ["192.0.2.0/24", "192.0.2.7"]),
        (("mail.example.org",), [".example.org"]),
        (("x@example.com",), ["example.com"]),
        (("JUNK",), ["192.0.2.7"]),
        (("ann",), ["192.0.2.0/24", "192.0.2.7", ".example.org", "example.com"]),
        (("--kind", "block"), ["192.0.2.7"]),
        (("--of", "sender"), ["example.com"]),
    ],
)
def test_entries_are_searched(config, words, found):
    """By what they name, and by their words."""
    ann = {"SUDO_USER": "ann"}
    done("allow", "-c", config, "192.0.2.0/24", ".example.org", environment=ann)
    done("block", "-c", config, "192.0.2.7", "--comment", "junk", environment=ann)
    done("allow", "-c", config, "--from", "example.com", environment=ann)
    assert sorted(e["subject"] for e in listed(config, *words)) == sorted(found)


def test_a_search_that_finds_nothing(config):
    """Says so, with status 1."""
    done("allow", "-c", config, "192.0.2.1")
    assert "no such entry" in done("entries", "-c", config, "203.0.113.1", status=1).error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name clients, or one sender"),
        (("192.0.2.1", "--from", "a@example.org"), "name clients, or one sender"),
        (("--from", "a@example.org", "--to", "b@example.net"), "name clients, or one sender"),
        (("192.0.2.1/24",), "192.0.2.0/24 is meant?"),
        (("192.0.2.1-192.0.2.9",), "192.0.2"),
        (("!192.0.2.1",), "no !"),
        (("--to", "<>"), "no recipient"),
        (("--from", "<a b@example.org>"), "no mailbox"),
        (("192.0.2.1", "--for", "11y"), "duration"),
        (("192.0.2.1", "--for", "4000d"), "at most 3650d"),
        (("192.0.2.1", "--for", "0s"), "less than a second"),
        (("192.0.2.1", "--comment", "x" * 201), "more than 200"),
    ],
)
def test_what_cannot_be(config, words, said):
    """Each is refused in clear words, with status 2, and nothing is stored."""
    assert said in done("allow", "-c", config, *words, status=2).error
    done("entries", "-c", config, status=1)


@pytest.mark.parametrize("subject", ["0.0.0.0/0", "::/0", ".com"])
def test_very_wide_ones_are_asked_about(config, subject):
    """Without a terminal --yes is needed, on one a no leaves all as it was."""
    assert "give --yes" in done("block", "-c", config, subject, status=1).error
    asked = in_terminal("block", "-c", config, subject, answer="n\n")
    assert asked.status == 1
    done("entries", "-c", config, status=1)
    done("block", "-c", config, subject, "--yes")
    assert len(listed(config)) == 1


def test_the_table_of_entries_steers_no_terminal(server, config):
    """What somebody else has put into the store is shown in one clean line, or not at all."""
    done("block", "-c", config, "192.0.2.1")
    with server.client() as client:
        value = b'1 99999999999 {"kind":"allow","who":"a\\u001b[2J","host":"h\\nx","comment":"\\u202e"}'
        client.hset(register.KEY, b"client 192.0.2.2", value)
        client.hset(register.KEY, b"client \x1b[2J", value)
    lines = done("entries", "-c", config).lines
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_with_a_secret_entries_stay_readable(server, write):
    """They are the admin's own words."""
    with server.client() as client:
        client.flushall()
    config = write(server.unix_url, store={"key_secret": "s" * 40})
    done("block", "-c", config, "--from", "spam@example.org")
    assert brief(config) == ["block sender spam@example.org"]


@pytest.mark.parametrize(
    "command", [("allow", "192.0.2.1"), ("block", "192.0.2.1"), ("unlist", "192.0.2.1"), ("entries",),
                ("expect", "a@example.org"), ("expect", "--list"), ("correspondents",),
                ("correspondents", "a@example.org"), ("correspondents", "--forget", "a@example.org")]
)  # fmt: skip
def test_a_store_that_is_down_is_said(write, command):
    """One line, without its password, and a status that is not 0."""
    config = write(f"redis://:hush@{LOOPBACK}:{free_port()}/0")
    result = done(command[0], "-c", config, *command[1:], status=69)
    assert "check [store] url" in result.error
    assert "hush" not in result.output + result.error


def test_expected_mail(server, config):
    """Made, shown and ended; the address is that of the greylist, whatever its case."""
    assert done("expect", "-c", config, "User@Example.NET").lines == [
        "mail to user@example.net is not delayed for 15m, on all hosts"
    ]
    done("expect", "-c", config, "b@example.net", "--for", "2h")
    rows = [json.loads(line) for line in done("expect", "-c", config, "--list", "--json").lines]
    assert [row["recipient"] for row in rows] == ["b@example.net", "user@example.net"]
    assert 7100 < rows[0]["seconds"] <= 7200
    assert "is no longer expected" in done("expect", "-c", config, "--end", "user@example.net").output
    assert "was not expected" in done("expect", "-c", config, "--end", "user@example.net", status=1).output
    with server.client() as client:
        assert client.hkeys(expected.KEY) == [b"b@example.net"]


@pytest.mark.parametrize(
    "words",
    [(), ("user",), ("<>",), ("a@b.example", "--for", "2d"), ("a@b.example", "--list"), ("--list", "--end")],
)
def test_expect_refuses(config, words):
    """What is no whole address, too long a time, and options that do not go together."""
    done("expect", "-c", config, *words, status=2)


def test_a_rule_must_look_at_entries(server, write):
    """A configuration of the time before has none, and the command says so."""
    with server.client() as client:
        client.flushall()
    config = write(server.unix_url, rule=[{"name": "rest", "action": "greylist"}])
    assert 'no rule has by_hand = "block"' in done("block", "-c", config, "192.0.2.1").error
    assert done("allow", "-c", write(server.unix_url), "192.0.2.1").error == ""


def test_explain_names_the_entry(config):
    """Which, by whom, when and why; in JSON too."""
    ann = {"SUDO_USER": "ann"}
    done("allow", "-c", config, "192.0.2.0/24", "--comment", "partners", environment=ann)
    done("block", "-c", config, "192.0.2.7", "--comment", "junk", environment=ann)
    shown = done("explain", "-c", config, "192.0.2.7").output
    assert 'reject, rule "hand out"' in shown
    assert "by_hand: yes (192.0.2.7, by ann)" in shown
    assert "junk" in shown
    found = json.loads(done("explain", "-c", config, "--json", "192.0.2.8").output)
    assert (found["rule"], found["passes"]) == ("hand in", True)
    assert [(e["kind"], e["subject"], e["who"], e["comment"]) for e in found["entries"]] == [
        ("allow", "192.0.2.0/24", "ann", "partners")
    ]
    done("expect", "-c", config, "b@example.net")
    waited = done("explain", "-c", config, "203.0.113.1", "--to", "b@example.net").output
    assert "mail for the recipient is expected" in waited
    assert "client gets: let in" in waited
