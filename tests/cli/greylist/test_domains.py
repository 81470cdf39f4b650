"""Entries by the sender's domain, for clients that SPF proves."""

import contextlib

import pytest

from cli.greylist.mails import listed
from hybridgrey.greylist.triplets import Greylist
from hybridgrey.store.connection import Store
from parts.commandline import run
from parts.greyterms import GreyTerms


@pytest.mark.parametrize("secret", ["", "sesame"])
def test_entries_by_domain(server, write, secret):
    """`spf=DOMAIN` stands in the place of a network: listed, spared, forgotten as one."""
    with server.client() as client:
        client.flushall()
    path = write(server.unix_url, store={"key_secret": secret})
    with contextlib.closing(Store.open(server.unix_url, 5.0)) as store:
        grey = Greylist(store, GreyTerms(auto_allow_interval=3600), key_secret=secret)
        triplet = "a@d.example", "b@example.net"
        network = grey.touch("192.0.2.77", *triplet, 300)
        store.run(*grey.attempt_by_domain("d.example", *triplet, 300, network))
    (one,) = listed(path, "spf=D.example")
    assert (one["state"], one["network"].startswith("spf="), "hidden" in one) == (
        "waiting",
        True,
        bool(secret),
    )
    if not secret:
        assert (one["domain"], one["sender"]) == ("d.example", "a@d.example")
        assert "spf=d.example" in run("greylist", "list", "-c", path, "spf=d.example").output
    done = run("greylist", "pass", "-c", path, "spf=d.example", "--for", "1h")
    assert (done.status, done.lines[0]) == (0, "no delay for spf=d.example, for 1h")
    assert [one["state"] for one in listed(path, "spf=d.example")] == ["allowed", "waiting"]
    words = ("spf=d.example", "--from", "a@d.example", "--to", "b@example.net")
    assert run("greylist", "pass", "-c", path, *words).status == 0
    assert [one["state"] for one in listed(path, "spf=d.example")] == ["allowed", "passed"]
    assert run("greylist", "forget", "-c", path, "spf=d.example", "--yes").lines == ["forgot 2 entries"]
    assert listed(path, "spf=d.example") == []
    # By sender both keys of a triplet are found.
    assert run("greylist", "forget", "-c", path, "--from", "a@d.example").lines == ["forgot 1 entry"]
    with server.client() as client:
        assert [key for key in client.scan_iter() if b"spf=" in key] == []


def test_domains_are_not_spared_where_they_are_not_asked(server, write):
    """With `sender_pools` off it would not help, and that is said."""
    path = write(server.unix_url, greylist={"sender_pools": False})
    done = run("greylist", "pass", "-c", path, "spf=d.example")
    assert (done.status, "greylist.sender_pools is off" in done.error) == (1, True)
