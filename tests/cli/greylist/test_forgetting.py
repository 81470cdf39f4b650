"""``hybridgrey greylist forget``, and what hidden names allow."""

import contextlib
import json

import pytest

from cli.greylist.mails import MAILS, fill, listed, peek
from hybridgrey.greylist.triplets import Greylist, parse_note
from hybridgrey.store.connection import Store
from parts.commandline import in_terminal, run
from parts.greyterms import GreyTerms


@pytest.mark.parametrize(
    ("words", "left", "forgotten"),
    [
        (["--from", "a@example.org"], 6, "1 entry"),
        (["--client", "192.0.2.1", "--yes"], 3, "4 entries"),
        (["192.0.2.99", "--yes"], 3, "4 entries"),
        (["192.0.2", "--state", "waiting", "--yes"], 5, "2 entries"),
        (["--all", "--yes"], 0, "7 entries"),
    ],
)
def test_forget(config, words, left, forgotten):
    """`forget` removes what `list` shows with the same options."""
    done = run("greylist", "forget", "-c", config, *words)
    assert (done.status, done.output) == (0, f"forgot {forgotten}\n")
    assert len(listed(config)) == left


# Options, the kinds of notes that are left: of the credit, of waiting triplets; and how many entries go
NOTES = [
    (["--client", "192.0.2.1"], "", 4),
    (["--client", "192.0.0.0/16"], "", 4),
    (["192.0.2.*"], "", 4),
    (["192.0.2.1"], "", 4),
    (["192.0.2"], "", 4),
    (["--client", "192.0.2.1", "--state", "counting"], "@", 1),
    (["--client", "192.0.2.1", "--state", "waiting"], "+", 2),
    (["--client", "192.0.2.1", "--from", "a@example.org"], "+@", 1),
    (["--from", "*@example.org"], "+@", 3),
    (["--client", "198.51.100.7"], "+@", 0),
    (["--all"], "", 4),
]


@pytest.mark.parametrize("secret", ["", "s3cret"])
@pytest.mark.parametrize(("words", "left", "forgotten"), NOTES)
def test_notes_are_forgotten_with_what_they_are_about(server, write, words, left, forgotten, secret):
    """What keeps a network's bounds is never listed, and goes with the network, its count or what waits."""
    if secret and any("*" in word or "/" in word for word in words):
        return  # not to be found among HMACs
    config = write(server.unix_url, store={"key_secret": secret})
    with server.client() as client, contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
        client.flushall()
        terms = GreyTerms(auto_allow_interval=3600, max_waiting=10)
        greylist = Greylist(store, terms, key_secret=secret)
        for address, sender, recipient, passes in MAILS:
            if address.startswith("192.0.2."):
                greylist.touch(address, sender, recipient, 0)
                if passes:
                    greylist.touch(address, sender, recipient, 0)
        assert len(listed(config)) == 4
        done = run("greylist", "forget", "-c", config, "--yes", "--json", *words)
        assert json.loads(done.output) == {"forgotten": forgotten}
        notes = {note.value for key in client.scan_iter() if (found := parse_note(key)) for note in found[1:]}
        assert notes == set(left)


def test_forget_asks(config):
    """Before several are forgotten it asks: no, and a missing terminal, leave all as it is."""
    done = run("greylist", "forget", "-c", config, "--all", text="y\n")
    assert (done.status, len(listed(config))) == (1, 7)
    assert done.error == "hybridgrey: forget 7 entries: give --yes, for there is no terminal to ask on\n"
    assert in_terminal("greylist", "forget", "-c", config, "--all", answer="n\n").status == 1
    assert len(listed(config)) == 7
    done = in_terminal("greylist", "forget", "-c", config, "--all", answer="y\n")
    assert (done.status, done.plain.splitlines()[-1]) == (0, "forgot 7 entries")
    assert listed(config) == []


def test_forget_nothing(config):
    """Nothing to forget is a negative result."""
    assert run("greylist", "forget", "-c", config, "--client", "203.0.113.1").status == 1


def test_hidden_entries(server, write):
    """With a key secret exact values find entries, patterns are refused, and no name is shown."""
    with server.client() as client:
        client.flushall()
    fill(server.unix_url, secret="s3cret")
    config = write(server.unix_url, store={"key_secret": "s3cret"})
    everything = listed(config)
    assert len(everything) == 7
    assert all(one["hidden"] for one in everything)
    assert "example" not in json.dumps(everything)
    assert len(listed(config, "--from", "a@example.org")) == 1
    assert len(listed(config, "--client", "192.0.2.50")) == 4
    for words in (["*example*"], ["--client", "192.0.0.0/8"], ["--from", "*@example.org"]):
        done = run("greylist", "list", "-c", config, *words)
        assert (done.status, "HMAC" in done.error) == (2, True)
    assert run("greylist", "pass", "-c", config, "203.0.113.1").status == 0
    assert peek(server.unix_url, "203.0.113.9", "x@a.example", "y@example.net", "s3cret") == "network"
    assert run("greylist", "forget", "-c", config, "--from", "a@example.org").status == 0
    assert len(listed(config)) == 7
