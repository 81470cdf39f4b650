"""Listening addresses and address:port pairs of the config file."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.config.sockets import Address, parse_address, parse_endpoint

ADDRESSES = [
    # written, what it means (None: an error)
    ("inet:8893@127.0.0.1", Address("inet", "127.0.0.1", 8893)),
    ("inet:8893@localhost", Address("inet", "localhost", 8893)),
    ("inet:8893", Address("inet", "", 8893)),
    ("inet6:8893@::1", Address("inet6", "::1", 8893)),
    ("inet6:8893@[::1]", Address("inet6", "::1", 8893)),
    ("inet6:8893", Address("inet6", "", 8893)),
    ("unix:/run/a.sock", Address("unix", path=Path("/run/a.sock"))),
    ("local:/run/a.sock", Address("unix", path=Path("/run/a.sock"))),
    ("/run/a.sock", Address("unix", path=Path("/run/a.sock"))),
    ("unix:a.sock", Address("unix", path=Path("/etc/hg/a.sock"))),
    ("", None),
    ("8893", None),
    ("127.0.0.1:8893", None),
    ("inet:", None),
    ("inet:0@127.0.0.1", None),
    ("inet:65536@127.0.0.1", None),
    ("inet:\uff18893@127.0.0.1", None),
    ("inet:8893@", None),
    ("inet:8893@::1", None),
    ("inet6:8893@127.0.0.1", None),
    ("inet:8893@127.0.0.300", None),
    ("inet:8893@host name", None),
    ("inet:8893@host..name", None),
    ("INET:8893", None),
    ("unix:", None),
    ("unix:/run/", None),
    ("unix:/run/a\0b", None),
    ("unix:/" + "a" * 103, None),
    ("tcp:8893@127.0.0.1", None),
]


@pytest.mark.parametrize(("text", "wanted"), ADDRESSES)
def test_address_is_libmilters(text, wanted):
    """Addresses follow libmilter's syntax; a relative socket path starts at the config file's folder."""
    if wanted is None:
        with pytest.raises(ValueError, match=r"."):
            parse_address(text, Path("/etc/hg"))
    else:
        assert parse_address(text, Path("/etc/hg")) == wanted


def test_relative_socket_needs_a_folder():
    """Without a config file a relative socket path is an error, not one in the current folder."""
    with pytest.raises(ValueError, match="folder"):
        parse_address("unix:a.sock")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("inet:127.0.0.1:8893", "inet:8893@127.0.0.1"),
        ("inet:localhost:8893", "inet:8893@localhost"),
        ("inet6:[::1]:8893", "inet6:8893@::1"),
        ("inet:[::1]:8893", ""),
        ("inet:127.0.0.1:0", ""),
        ("inet::8893", ""),
        ("inet:127.0.0.1", ""),
    ],
)
def test_address_turned_round_is_recognized(text, meant):
    """ADDRESS:PORT is answered with what must be written, if that can be used."""
    with pytest.raises(ValueError, match=r".") as error:
        parse_address(text)
    assert (f'; you mean "{meant}"?' in str(error.value)) if meant else ("mean" not in str(error.value))


@pytest.mark.parametrize("address", [a for _, a in ADDRESSES if a])
def test_printed_address_reads_back(address):
    """An address prints in the syntax that it is read in."""
    assert parse_address(str(address)) == address


ENDPOINTS = [
    # written, port when there is none, wanted (None: an error)
    ("127.0.0.1", 53, ("127.0.0.1", 53)),
    ("127.0.0.1:5353", 53, ("127.0.0.1", 5353)),
    ("::1", 53, ("::1", 53)),
    ("[::1]", 53, ("::1", 53)),
    ("[::1]:5353", 53, ("::1", 5353)),
    ("fe80::1%eth0", 53, ("fe80::1%eth0", 53)),
    ("localhost:9893", None, ("localhost", 9893)),
    ("127.0.0.1", None, None),
    ("127.0.0.1:", 53, None),
    ("127.0.0.1:0", 53, None),
    ("127.0.0.1:99999", 53, None),
    ("127.0.0.1:53x", 53, None),
    ("[::1", 53, None),
    ("[::1]53", 53, None),
    ("ns.example.org", 53, None),
    ("", 53, None),
    ("1.2.3", 53, None),
]


@pytest.mark.parametrize(("text", "port", "wanted"), ENDPOINTS)
def test_endpoint(text, port, wanted):
    """An endpoint is an address and a port; with a port an IPv6 address stands in brackets."""
    if wanted is None:
        with pytest.raises(ValueError, match="must be"):
            parse_endpoint(text, port)
    else:
        assert parse_endpoint(text, port) == wanted


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["", "inet:", "inet6:", "inet:1@", "unix:", "/"]))
def test_any_text_is_read_or_refused(text, start):
    """Whatever stands in the file, the answer is an address or a ValueError."""
    for read in (parse_address, parse_endpoint):
        try:
            read(start + text)
        except ValueError as e:
            assert str(e)
