"""Addresses of a triplet: real shapes of sender, recipient and client, and what holds for any text."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.address import MAX_NAME
from hybridgrey.clientaddress import ClientReader
from hybridgrey.envelope import MAX_LOCAL, read
from hybridgrey.greylist.normalise import client_network, recipient, sender

SENDERS = [
    # typed by the client, wanted
    ("<>", "<>"),
    ("", "<>"),
    ("<user@example.org>", "user@example.org"),
    ("User@Example.ORG", "user@example.org"),
    ("<@relay.example,@b.example:User@example.org>", "user@example.org"),
    ("<user@example.org.>", "user@example.org"),
    ('<"john.doe"@example.org>', "john.doe@example.org"),
    (r'<"john\.doe"@example.org>', "john.doe@example.org"),
    ("<postmaster>", "postmaster"),
    ("<user@[192.0.2.1]>", "user@[192.0.2.1]"),
    ("<user@[IPv6:2001:db8::1]>", "user@[ipv6:2001:db8::1]"),
    ("<JÜRGEN@EXAMPLE.ORG>", "jürgen@example.org"),
    # people stay apart
    ("john.smith2@example.org", "john.smith2@example.org"),
    ("john.smith3@example.org", "john.smith3@example.org"),
    ("r2d2@example.org", "r2d2@example.org"),
    ("agent007@example.org", "agent007@example.org"),
    ("christopher42@example.org", "christopher42@example.org"),
    ("hans-peter.mueller-luedenscheidt@example.org", "hans-peter.mueller-luedenscheidt@example.org"),
    ("b2b-sales@example.org", "b2b-sales@example.org"),
    ("deadbeef@example.org", "deadbeef@example.org"),
    ("abcde1984@example.org", "abcde#@example.org"),
    ("donaudampfschifffahrtsgesellschaft@example.org", "donaudampfschifffahrtsgesellschaft@example.org"),
    ("john2+shopping@example.org", "john#+shopping@example.org"),
    # BATV
    ("prvs=3115a1b2c3=joe@example.org", "joe@example.org"),
    ("prvs=9876ffffff=joe@example.org", "joe@example.org"),
    ("prvs=joe=3115a1b2c3@example.org", "joe@example.org"),
    ("btv1==123456789ab==joe@example.org", "joe@example.org"),
    ("msprvs1=17891Q0bX3=joe@example.org", "joe@example.org"),
    # SRS
    ("SRS0=aB3d=X7=example.com=joe@fwd.example", "srs=#=#=example.com=joe@fwd.example"),
    ("SRS0+Zz9q=Y1=example.com=joe@fwd.example", "srs=#=#=example.com=joe@fwd.example"),
    (
        "SRS1=Qw1e=fwd.example==aB3d=X7=example.com=joe@two.example",
        "srs=#=fwd.example==#=#=example.com=joe@two.example",
    ),
    ("SRS0=aB3d=X7=my-shop.com=joe.doe@fwd.example", "srs=#=#=my-shop.com=joe.doe@fwd.example"),
    ("joe+SRS=aB3dE=X7=example.com=jane@corp.example", "joe+srs=#=#=example.com=jane@corp.example"),
    ("joe+SRS=aB3dE=X7=my-shop.com=jane.doe@corp.example", "joe+srs=#=#=my-shop.com=jane.doe@corp.example"),
    ("joe+SRS=+b/dE=X7=example.com=j2k3@corp.example", "joe+srs=#=#=example.com=j#k#@corp.example"),
    ("bounces+SRS=Sx5lQ=NF@corp.example", "bounces+srs=#=#@corp.example"),
    # VERP
    ("list-bounces+user=example.com@lists.example", "list-bounces+#@lists.example"),
    ("list-return-4711-user=example.com@lists.example", "list-return-#-#@lists.example"),
    ("list-return-4712-user=example.com@lists.example", "list-return-#-#@lists.example"),
    ("bounces+3871231-a1b2-user=example.com@em.example", "bounces+#-#-#@em.example"),
    ("bounce-12345-678@news.example", "bounce-#-#@news.example"),
    ("bounce-9_HTML-77-5-1@news.example", "bounce-#_html-#-#-#@news.example"),
    ("noreply-12@shop.example", "noreply-#@shop.example"),
    # tokens
    ("010001870a1b2c3d-1a2b3c4d-1234-5678-9abc-def012345678-000000@ses.example", "#-#-#@ses.example"),
    ("1a2b3c4d-1234-5678-9abc-def012345678@pm.example", "#@pm.example"),
    ("msg.x7k2m9q4z1t8@news.example", "msg.#@news.example"),
    ("reply-" + "abcdefgh" * 5 + "@news.example", "reply-#@news.example"),
    ("order20260131@shop.example", "order#@shop.example"),
    ("prvs=3115a1b2c3=srs0=aB3d=X7=example.com=joe@fwd.example", "srs=#=#=example.com=joe@fwd.example"),
]


@pytest.mark.parametrize(("typed", "wanted"), SENDERS)
def test_sender(typed, wanted):
    """A sender is reduced to what stays the same from message to message."""
    assert sender(typed) == wanted


SAME = [
    ("prvs=3115a1b2c3=joe@example.org", "prvs=4220d4e5f6=joe@example.org"),
    ("SRS0=aaaa=X7=example.com=joe@f.example", "SRS0=bbbb=Y9=example.com=joe@f.example"),
    ("b-1abc.99-x=example.com@l.example", "b-1abc.1234-x=example.com@l.example"),
    ("bounces+1@l.example", "BOUNCES+23@L.example"),
    (
        "0100018a00000001-0a1b2c3d-0000-1111-2222-333344445555-000000@ses.example",
        "0100018b0f0f0f01-9f8e7d6c-4444-1111-2222-abcdefabcdef-000000@ses.example",
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_messages_of_one_sender_are_equal(one, other):
    """Two messages of one automatic sender give one triplet."""
    assert sender(one) == sender(other)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("<User+Detail@Example.ORG>", "user+detail@example.org"),
        ("<user12345@example.org>", "user12345@example.org"),
        ("<@a.example:user@example.org>", "user@example.org"),
        ("<Postmaster>", "postmaster"),
        ("", ""),
    ],
)
def test_recipient(typed, wanted):
    """A recipient is cleaned and case-folded, its detail and digits kept."""
    assert recipient(typed) == wanted


@pytest.mark.parametrize(
    ("client", "wanted"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("[192.0.2.77]", "192.0.2.0/24"),
        ("2001:db8:1:2:3::9", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("IPv6:2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("64:ff9b::192.0.2.77", "192.0.2.0/24"),
        ("::ffff:0:192.0.2.77", "192.0.2.0/24"),
        ("2002:c000:24d:1::9", "192.0.2.0/24"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdb2", "192.0.2.0/24"),
        ("64:ff9b::127.0.0.1", "64:ff9b::/64"),
        ("unknown", "unknown"),
        ("192.0.2.300", "192.0.2.300"),
        ("", ""),
    ],
)
def test_client_network(client, wanted):
    """A client is its network; IPv4 inside IPv6 is IPv4; what is no address stays text."""
    assert client_network(client, 24, 64) == wanted


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [(32, "192.0.2.77/32"), (25, "192.0.2.0/25"), (0, "0.0.0.0/0"), (99, "192.0.2.77/32"), (-1, "0.0.0.0/0")],
)
def test_prefix(prefix, wanted):
    """Each prefix length cuts at its bit; one out of range is the nearest possible."""
    assert client_network("192.0.2.77", prefix, 64) == wanted


# Pieces that mean something to the folding, so that random addresses meet its rules.
PIECES = st.sampled_from(
    [
        *'=+-._@:<>"\\ #7ßİ\udc80\0',
        "prvs=",
        "btv1==",
        "==",
        "srs0=",
        "srs1=",
        "1a2b3c4d",
        "12345",
        "joe",
        "bounce",
        "example.com",
        "+srs=",
        "bounces+",
        "+bnc",
        "bounce.",
        "xkqzvwpb",
        "a" * 250,
    ]
)
ADDRESSES = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join))


@given(ADDRESSES)
def test_normal_form_is_stable(address):
    """Normalising twice is normalising once, for any text, and the result is bounded."""
    for function in (sender, recipient):
        once = function(address)
        assert function(once) == once
        assert len(once) <= MAX_LOCAL + 1 + MAX_NAME


@given(ADDRESSES)
def test_case_does_not_matter(address):
    """ASCII upper and lower case give one sender, if it is one: a digest is of all that was sent."""
    if not read(address).certain:
        return
    upper = "".join(c.upper() if c.isascii() else c for c in address)
    assert sender(upper) == sender(address)


@given(st.text(), st.integers(-5, 200), st.integers(-5, 200))
def test_any_client_has_a_network(client, ipv4_prefix, ipv6_prefix):
    """No client text makes the network fail."""
    assert len(client_network(client, ipv4_prefix, ipv6_prefix)) <= 64


@given(st.ip_addresses(v=6), st.integers(0, 128))
def test_network_contains_its_client(address, prefix):
    """An IPv6 client's network is the one that `ipaddress` computes, but where an IPv4 address is in it."""
    if address.ipv4_mapped is None and ClientReader().carried(address.packed) is None:
        wanted = ipaddress.ip_network((address, prefix), strict=False)
        assert ipaddress.ip_network(client_network(str(address), 24, prefix)) == wanted


@pytest.mark.parametrize(
    "piece", ["a", "1", "a1", "=", "-", "+", "a-", "1=", "a.", "@", "srs0=", '"', "prvs=a1="]
)
def test_long_addresses_are_no_trap(piece):
    """A hundred thousand characters of any piece end within the test's time limit."""
    assert len(sender(piece * 100_000)) <= MAX_LOCAL + 1 + MAX_NAME
