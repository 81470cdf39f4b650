"""Kinds of host names: a table of some hundred, its error, and the places where names are cut."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.policy.rdns import Name, classify

TABLE = Path(__file__).with_name("rdns_names.txt")


def table():
    for line in TABLE.read_text().splitlines():
        if not line.startswith("#"):
            wanted, address, name = line.split()
            yield Name(wanted), ipaddress.ip_address(address).packed, name


def wrong(kind):
    """The names of a kind that are taken for another."""
    return [
        name for wanted, address, name in table() if wanted is kind and classify(name, address) is not kind
    ]


def test_table(capsys):
    """Of names that were chosen hardly any is called generic, of the others most."""
    counts = {kind: sum(wanted is kind for wanted, _, _ in table()) for kind in (Name.GENERIC, Name.NAMED)}
    positive, negative = wrong(Name.NAMED), wrong(Name.GENERIC)
    with capsys.disabled():
        print(f"\nrdns: {len(positive)} of {counts[Name.NAMED]} chosen names called generic: {positive}")
        print(f"rdns: {len(negative)} of {counts[Name.GENERIC]} made names called named: {negative}")
    assert len(positive) <= 2
    assert len(negative) <= 11
    assert min(counts.values()) > 200


CASES = [
    # name, address, wanted
    (None, "192.0.2.1", "none"),
    ("", "192.0.2.1", "none"),
    ("unknown", "192.0.2.1", "none"),
    ("[192.0.2.1]", "192.0.2.1", "none"),
    ("mail.example.org", "192.0.2.1", "named"),
    ("example.org", "192.0.2.1", "named"),
    ("org", "192.0.2.1", "named"),
    ("203.0.113.5.example.org", "203.0.113.5", "generic"),
    ("5.113.0.203.example.org", "203.0.113.5", "generic"),
    ("x203000113005.example.org", "203.0.113.5", "generic"),
    ("x-203-000-113-005.example.org", "203.0.113.5", "generic"),
    ("CB007105.example.org.", "203.0.113.5", "generic"),
    ("a-0-113-5.example.org", "203.0.113.5", "generic"),
    ("203.0.112.6.example.org", "203.0.113.5", "named"),
    ("a113-5.example.org", "203.0.113.5", "named"),
    ("user-113-5.example.org", "203.0.113.5", "generic"),
    ("203-0-113-5.smtp.example.org", "203.0.113.5", "named"),
    ("203-0-113-5.dyn.mail.example.org", "203.0.113.5", "generic"),
    ("ip-203-0-113-5.ec2.internal", "203.0.113.5", "generic"),
    ("static.203.0.113.5.clients.your-server.de", "203.0.113.5", "generic"),
    ("ns1.ip-203-0-113.eu", "203.0.113.5", "generic"),
    # The words of a registered domain are not the host's.
    ("mx.dsl-pool.com", "192.0.2.1", "named"),
    ("mx.dsl-pool.com.br", "192.0.2.1", "named"),
    ("host.dsl.co.uk", "192.0.2.1", "named"),
    ("x.dsl.example.co.uk", "192.0.2.1", "generic"),
    # A word is a word, not a part of one.
    ("mxpool17.example.org", "192.0.2.1", "named"),
    ("dynamics.example.org", "192.0.2.1", "named"),
    ("static2.example.org", "192.0.2.1", "named"),
    ("vps2.example.org", "192.0.2.1", "named"),
    ("vps-1234.vps.ovh.net", "192.0.2.1", "generic"),
    ("host.example.org", "2001:db8::1", "named"),
    ("2001-db8-0-0-0-0-0-1.example.org", "2001:db8::1", "generic"),
    ("20010db8000000000000000000000001.example.org", "2001:db8::1", "generic"),
    ("x-2001-0db8-0001-0002-aaaa.example.org", "2001:db8:1:2:3::4", "generic"),
    ("2001-db8-0-0-0-0-0-2.mail.example.org", "2001:db8::2", "named"),
]


@pytest.mark.parametrize(("name", "address", "wanted"), CASES)
def test_kind(name, address, wanted):
    """What makes a name generic, and what does not."""
    assert classify(name, ipaddress.ip_address(address).packed).value == wanted


@given(
    st.text(max_size=300) | st.none(), st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
)
def test_any_name(name, address):
    """Any text is of some kind."""
    assert classify(name, address) in Name


@given(st.ip_addresses(v=4), st.sampled_from(["-", ".", "x"]), st.booleans())
def test_four_octets(address, between, backwards):
    """All octets of the address in the name make it generic, in either order."""
    octets = [str(octet) for octet in address.packed]
    name = between.join(reversed(octets) if backwards else octets)
    assert classify(f"a{name}.b.example.org", address.packed) is Name.GENERIC


@pytest.mark.parametrize("name", ["1" * 255, "-1" * 127, "a0" * 127, "mx-" * 85, "s01" * 85])
def test_long_names(name):
    """Names of any shape are read in no time (no pattern runs away)."""
    assert classify(f"{name}.example.org", b"\1\1\1\2") in Name
