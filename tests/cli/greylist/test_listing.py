"""``hybridgrey greylist`` as a process, on real servers: entries are shown and passed."""

import json

import pytest

from cli.greylist.mails import LIFETIME, listed, peek
from parts.commandline import in_terminal, run


@pytest.mark.parametrize(
    ("words", "triplets", "networks"),
    [
        ([], 5, 2),
        (["--client", "192.0.2.77"], 3, 1),
        (["--client", "192.0.2.0/24"], 3, 1),
        (["--client", "192.0.0.0/16"], 3, 1),
        (["--client", "0.0.0.0/0"], 4, 1),
        (["--client", "::ffff:192.0.2.1"], 3, 1),
        (["--client", "64:ff9b::192.0.2.1"], 3, 1),
        (["--client", "64:ff9b::192.0.2.0/120"], 3, 1),
        (["--client", "2002:c000:201::25"], 3, 1),
        (["--client", "64:ff9b::127.0.0.1"], 0, 0),
        (["--client", "2001:db8::/32"], 1, 1),
        (["--client", "192.0.*"], 3, 1),
        (["--from", "A@EXAMPLE.org"], 1, 0),
        (["--from", ""], 1, 0),
        (["--from", "list-return-9999-z=example.com@lists.example"], 1, 0),
        (["--from", "*@example.org"], 3, 0),
        (["--from", "?@example.org", "--to", "b@example.net"], 2, 0),
        (["--to", "postmaster@example.net"], 1, 0),
        (["--client", "192.0.2.1", "--from", "a@example.org", "--to", "b@example.net"], 1, 0),
        (["--state", "waiting"], 3, 0),
        (["--state", "passed"], 2, 0),
        (["--state", "counting"], 0, 2),
        (["--state", "allowed"], 0, 0),
        (["*example.org"], 3, 0),
        (["2001:*"], 1, 1),
        (["nothing"], 0, 0),
        (["192.0.2.7"], 3, 1),
        (["192.0.2.0/24"], 3, 1),
        (["192.0.2"], 3, 1),
        (["192.0.2."], 3, 1),
        (["192.0"], 3, 1),
        (["192."], 3, 1),
        (["192"], 0, 0),
        (["192.0.200"], 0, 0),
        (["2001:db8"], 1, 1),
        (["2001:DB8:"], 1, 1),
        (["64:ff9b::192.0.2.1"], 3, 1),
        (["--client", "192.0.2"], 3, 1),
        (["192.0.2", "--from", "a@example.org"], 1, 0),
        (["192.0.2.7", "--state", "waiting"], 2, 0),
    ],
)
def test_filters(config, words, triplets, networks):
    """Each filter finds what it says and nothing else, in clear text."""
    found = listed(config, *words)
    assert sum("sender" in one for one in found) == triplets
    assert sum("passed" in one for one in found) == networks


def test_fields(config):
    """An entry has its state, its parts, its age and its expiry."""
    (one,) = listed(config, "--from", "a@example.org")
    assert one.pop("age") in range(20)
    assert LIFETIME - 20 < one.pop("expires") <= LIFETIME
    assert one == {
        "state": "passed",
        "network": "192.0.2.0/24",
        "sender": "a@example.org",
        "recipient": "b@example.net",
    }


def test_order(config, server):
    """By network as numbers, IPv4 first, each before its triplets; then by sender and recipient."""
    with server.client() as client:
        for network in ("9.0.0.0/24", "10.0.0.0/24", "2001:db9::/64", "unix"):
            client.set(f"hg1:{{{network}}}:a@b.example:c@d.example", -1700000000)
    found = [(one["network"], one.get("sender"), one.get("recipient")) for one in listed(config)]
    networks = list(dict.fromkeys(network for network, *_ in found))
    assert networks == [
        *("9.0.0.0/24", "10.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24"),
        *("2001:db8::/64", "2001:db9::/64", "unix"),
    ]
    inside = [rest for network, *rest in found if network == "192.0.2.0/24"]
    assert inside[0] == [None, None]
    assert inside[1:] == sorted(inside[1:])
    assert [(one["network"], one.get("sender")) for one in listed(config, "--limit", "3")] == [
        (network, sender) for network, sender, _ in found[:3]
    ]


def test_text_is_plain_and_one_line_an_entry(config):
    """Piped, an entry is one line without colours, whatever its sender wrote."""
    done = run("greylist", "list", "-c", config)
    assert (done.status, done.error, len(done.lines)) == (0, "", 8)
    assert done.lines[0].split() == ["STATE", "NETWORK", "AGE", "EXPIRES", "SENDER", "RECIPIENT"]
    assert "\x1b" not in done.output
    at = {word: done.lines[0].index(word) for word in ("NETWORK", "SENDER", "RECIPIENT")}
    triplets = [line for line in done.lines if "b@example.net" in line and "a@example.org" in line]
    assert triplets
    for line in triplets:
        assert line.index("192.0.2.0/24") == at["NETWORK"]
        assert line.index("a@example.org") == at["SENDER"]
        assert line.index("b@example.net") == at["RECIPIENT"]


def test_terminal(config):
    """On a terminal states have colours, unless NO_COLOR is set, and a last line counts."""
    assert "\x1b[32mpassed" in in_terminal("greylist", "list", "-c", config).output
    done = in_terminal("greylist", "list", "-c", config, environment={"NO_COLOR": "1"})
    assert "\x1b[3" not in done.output
    assert done.lines[-1] == "7 entries"


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["192.0.2.200"], 4),
        (["192.0.2"], 4),
        (["192.0.2.1", "--from", "a@example.org", "--to", "b@example.net"], 1),
    ],
)
def test_show(config, words, count):
    """`show` prints a network and its triplets, or one triplet."""
    assert len(run("greylist", "show", "-c", config, *words).lines) == count + 1


def test_show_nothing(config):
    """Where nothing is known, `show` says so in one line and ends with 1."""
    done = run("greylist", "show", "-c", config, "203.0.113.1")
    assert (done.status, done.output) == (1, "")
    assert done.error == "hybridgrey: nothing is known of 203.0.113.1\n"


def test_old_name(config):
    """`greylist allow` of version 0.1 does the same, and says its new name on stderr; no help shows it."""
    words = ["203.0.113.0/24", "--for", "7d", "--json"]
    old = run("greylist", "allow", "-c", config, *words)
    assert (old.status, old.output) == (0, run("greylist", "pass", "-c", config, *words).output)
    assert old.error == "note: `greylist allow` is called `greylist pass` now\n"
    assert "allow " not in run("greylist", "--help").output.partition("Commands:")[2]


def test_allow_network(config, server):
    """An allowed network is let in without delay, and `list` shows it."""
    done = run("greylist", "pass", "-c", config, "203.0.113.0/24", "--for", "7d")
    assert (done.status, done.error) == (0, "")
    first, second = done.lines
    assert first == "no delay for 203.0.113.0/24, for 1w"
    assert second == "note: a rule or list that rejects it still does; hybridgrey explain tells"
    assert peek(server.unix_url, "203.0.113.5", "x@example.org", "y@example.net") == "network"
    (one,) = listed(config, "--state", "allowed")
    assert (one["network"], one["passed"]) == ("203.0.113.0/24", 5)
    assert 604800 - 20 < one["expires"] <= 604800
    assert run("greylist", "show", "-c", config, "203.0.113.5").lines[-1].endswith("5 passed, or by hand")


def test_allow_several_networks(config, server):
    """A wide network becomes several of the greylist's, after a question."""
    refused = run("greylist", "pass", "-c", config, "203.0.112.0/23")
    assert (refused.status, refused.output) == (1, "")
    assert "give --yes" in refused.error
    assert run("greylist", "pass", "-c", config, "203.0.112.0/23", "--yes").status == 0
    for client in ("203.0.112.9", "203.0.113.9"):
        assert peek(server.unix_url, client, "x@example.org", "y@example.net") == "network"


def test_allow_triplet(config, server):
    """An allowed triplet is as one that has passed; its neighbours are not."""
    who = ["192.0.2.1", "--from", "new@example.org", "--to", "b@example.net"]
    assert run("greylist", "pass", "-c", config, *who).status == 0
    assert peek(server.unix_url, "192.0.2.1", "new@example.org", "b@example.net") == "known"
    assert peek(server.unix_url, "192.0.2.1", "new@example.org", "c@example.net") == "new"


def test_changes_as_json(config):
    """With --json a change is one object."""
    done = run("greylist", "pass", "-c", config, "203.0.113.9", "--for", "1h", "--json")
    assert json.loads(done.output) == {
        "client": "203.0.113.9",
        "networks": ["203.0.113.0/24"],
        "expires": 3600,
    }
    done = run("greylist", "forget", "-c", config, "--client", "203.0.113.9", "--json")
    assert json.loads(done.output) == {"forgotten": 1}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["pass", "nonsense"], "is no address or network"),
        (["pass", "10.0.0.0/4"], "is too wide"),
        (["pass", "192.0.2.1", "--from", "a@b.example"], "belong together"),
        (["pass", "192.0.2.1", "--for", "5x"], "'--for': '5x' is no duration"),
        (["pass", "192.0.2.1", "--for", "500ms"], "'--for': '500ms' is less than a second"),
        (["list", "--client", "nonsense"], "--client: 'nonsense' is no address, network or pattern"),
        (["show", "nonsense"], "CLIENT: 'nonsense' is no address, network or pattern"),
        (["list", "192.0.2.1", "--client", "192.0.2.2"], "PATTERN: '192.0.2.1' is a client"),
        (["forget"], "--all"),
        (["forget", "--all", "--client", "192.0.2.1"], "no other condition"),
    ],
)
def test_wrong_usage(config, words, text):
    """Wrong usage ends with 2 and says what is wrong; nothing is changed."""
    before = len(listed(config))
    done = run("greylist", words[0], "-c", config, *words[1:])
    assert (done.status, done.output) == (2, "")
    assert text in done.error
    assert len(listed(config)) == before


def test_allow_where_networks_are_off(write, server):
    """With auto_allow_after = 0 allowing a network is refused, for it would do nothing."""
    done = run(
        "greylist", "pass", "-c", write(server.unix_url, greylist={"auto_allow_after": 0}), "192.0.2.1"
    )
    assert (done.status, done.output) == (1, "")
    assert "auto_allow_after = 0" in done.error
