"""One reading of a client's address: which IPv4 address it carries, and what that is worth."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey import clientaddress
from hybridgrey.clientaddress import Carried, ClientReader
from hybridgrey.config.rules import DEFAULT_RULES
from hybridgrey.policy.judge import Action, Answer, Facts, Policy, Rule, Verdict, judge
from hybridgrey.policy.match import Kind, parse_entry
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.policy.trace import Question, retrace

READER = ClientReader()
OWN = ["2001:db8::/32", "2001:db8:100::/40", "2001:db8:122::/48", "2001:db8:122:300::/56"]
OWN += ["2001:db8:122:344::/64", "2001:db8:122:344::/96"]
# RFC 6052 section 2.4, its own examples for 192.0.2.33; the narrower prefix wins where they are nested.
EXAMPLES = [
    ("2001:db8:c000:221::", "2001:db8::/32"),
    ("2001:db8:1c0:2:21::", "2001:db8:100::/40"),
    ("2001:db8:122:c000:2:2100::", "2001:db8:122::/48"),
    ("2001:db8:122:3c0:0:221::", "2001:db8:122:300::/56"),
    ("2001:db8:122:344:c0:2:2100::", "2001:db8:122:344::/64"),
    ("2001:db8:122:344::192.0.2.33", "2001:db8:122:344::/96"),
]

TABLE = [
    # as the MTA has it, text, what lists are asked about, whether that is proven (None: nothing is carried)
    ("192.0.2.1", "192.0.2.1", "192.0.2.1", None),
    ("[192.0.2.1]", "192.0.2.1", "192.0.2.1", None),
    ("2001:db8::1", "2001:db8::1", "2001:db8::1", None),
    ("IPv6:2001:DB8::1", "2001:db8::1", "2001:db8::1", None),
    ("fe80::1%eth0", "fe80::1", "fe80::1", None),
    ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1", None),
    ("IPv6:::ffff:c000:201", "192.0.2.1", "192.0.2.1", None),
    ("::ffff:0:192.0.2.1", "::ffff:0:c000:201", "192.0.2.1", True),
    ("64:ff9b::192.0.2.1", "64:ff9b::c000:201", "192.0.2.1", True),
    ("64:ff9b::1:c000:201", "64:ff9b::1:c000:201", "64:ff9b::1:c000:201", None),
    ("64:ff9b:1::192.0.2.1", "64:ff9b:1::c000:201", "64:ff9b:1::c000:201", None),
    ("2002:c000:201::1", "2002:c000:201::1", "192.0.2.1", False),
    ("2001:0:4136:e378:8000:63bf:3fff:fdfe", "2001:0:4136:e378:8000:63bf:3fff:fdfe", "192.0.2.1", False),
    ("2001:1::1", "2001:1::1", "2001:1::1", None),
    # what no client out there can have
    *((f"64:ff9b::{one}", None, None, None) for one in ("127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1")),
    *(
        (f"64:ff9b::{one}", None, None, None)
        for one in ("10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1")
    ),
    ("64:ff9b::172.32.0.1", None, "172.32.0.1", True),
    ("::ffff:0:127.0.0.1", None, None, None),
    ("2002:7f00:1::1", None, None, None),
    ("2002:a00:1::1", None, None, None),
    ("2001::ffff:ffff", None, None, None),
    ("2001::80ff:fffe", None, None, None),  # 127.0.0.1
    ("::192.0.2.1", None, None, None),
    ("::1", "::1", "::1", None),
]


@pytest.mark.parametrize(("given", "text", "asked", "proven"), TABLE)
def test_table(given, text, asked, proven):
    """Lists are asked about the IPv4 address inside, and the text stays the MTA's."""
    found = READER.read(given)
    plain = str(IPv6Address(given)) if text is None else text
    wanted = ipaddress.ip_address(asked or plain)
    assert ipaddress.ip_address(found.text) == ipaddress.ip_address(plain)
    assert (found.asked, ipaddress.ip_address(found.listed)) == (wanted.packed, wanted)
    assert (found.carried and found.carried.proven) == proven


@pytest.mark.parametrize(
    "given", ["", "unknown", "192.0.2.300", "64:ff9b::192.0.2", "\0", "x" * 9999, "::\udc80"]
)
def test_no_address(given):
    """What is no IP address stays text and carries nothing."""
    assert READER.read(given) == (given, None, None)


@pytest.mark.parametrize(("given", "prefix"), EXAMPLES)
def test_rfc_6052(given, prefix):
    """The position of IPv4 depends on the prefix's length; of nested prefixes the narrowest counts."""
    for prefixes in ([prefix], OWN):
        reader = ClientReader(map(IPv6Network, prefixes))
        assert reader.carried(IPv6Address(given).packed) == Carried(IPv4Address("192.0.2.33").packed, True)


def test_an_own_prefix():
    """An own prefix may carry private clients; the well-known one is off where it is not named."""
    reader = ClientReader([IPv6Network("2001:db8:64::/96")])
    assert reader.read("2001:db8:64::10.0.0.1").listed == "10.0.0.1"
    assert reader.read("2001:db8:64::127.0.0.1").carried is None
    assert reader.read("64:ff9b::192.0.2.1").carried is None
    assert reader.read("::ffff:0:192.0.2.1").listed == "192.0.2.1"
    # The byte that is zero in all addresses of a translator.
    assert ClientReader([IPv6Network("2001:db8::/32")]).read("2001:db8:c000:221:100::").carried is None


@given(st.ip_addresses(v=4), st.sampled_from(clientaddress.LENGTHS), st.binary(min_size=16, max_size=16))
def test_round_trip(address, length, noise):
    """What a translator makes of an IPv4 client is read back, whatever prefix and suffix."""
    prefix = bytearray(noise[: length // 8])
    prefix[0] = 0x20
    if length == 96:
        prefix[8] = 0
    made = bytearray(prefix)
    for byte in address.packed:
        if len(made) == 8:
            made.append(0)
        made.append(byte)
    if len(made) == 8:
        made.append(0)
    made += noise[len(made) :]
    network = IPv6Network((bytes(prefix) + bytes(16 - len(prefix)), length))
    clientaddress.check_nat64(network)
    carried = ClientReader([network]).carried(bytes(made))
    dead = (
        address.is_loopback
        or address.is_multicast
        or address.is_link_local
        or address.packed[0] in (0, *range(240, 256))
    )
    assert carried == (None if dead else Carried(address.packed, True))


@given(st.ip_addresses(v=6) | st.ip_addresses(v=4))
def test_without_carrying_nothing_changes(address):
    """Any other client is asked and remembered as it is."""
    found = READER.read(str(address))
    if found.carried is None and getattr(address, "ipv4_mapped", None) is None:
        assert (found.asked, ipaddress.ip_address(found.listed)) == (address.packed, address)


@given(st.text())
def test_any_text(text):
    """No text of an MTA's makes it fail."""
    READER.read(text)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("64:ff9b::192.0.2.1/128", "192.0.2.1/32"),
        ("64:ff9b::192.0.2.0/120", "192.0.2.0/24"),
        ("2002:c000:201::/48", "192.0.2.1/32"),
        ("2002:c000:201:1::/64", "192.0.2.1/32"),
        ("2002::/16", "2002::/16"),
        ("64:ff9b::/64", "64:ff9b::/64"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_networks(given, wanted):
    """A network typed for the greylist's commands is the IPv4 network that it stands for."""
    assert str(READER.network(ipaddress.ip_network(given))) == wanted


# -- what rules make of it

IS = READER.read("64:ff9b::192.0.2.1")
SAYS = READER.read("2002:c000:201::1")
RULES = [
    # entries of clients, action, holds for the translated client, holds for the 6to4 client
    (["192.0.2.0/24"], "accept", True, False),
    (["192.0.2.0/24"], "reject", True, True),
    (["192.0.2.0/24"], "tempfail", True, True),
    (["192.0.2.0/24"], "greylist", True, False),
    (["192.0.2.0/24"], "none", True, False),
    (["!192.0.2.0/24"], "accept", False, False),
    (["!192.0.2.0/24"], "reject", False, True),
    (["192.0.2.0/24", "!192.0.2.1"], "reject", False, False),
    (["192.0.2.0/24", "!192.0.2.1"], "accept", False, False),
    (["64:ff9b::/96", "2002::/16"], "accept", True, True),
    (["64:ff9b::/96", "2002::/16"], "reject", True, True),
    (["64:ff9b::/96", "2002::/16", "!192.0.2.1"], "accept", False, False),
    (["64:ff9b::/96", "2002::/16", "!192.0.2.1"], "reject", False, True),
    (["::/0", "!64:ff9b::/96", "!2002::/16"], "accept", False, False),
    (["192.0.2.0/24", "!64:ff9b::/96", "!2002::/16"], "reject", False, False),
    (["198.51.100.0/24"], "reject", False, False),
    (["mail.example"], "accept", True, True),
    (["mail.example", "!192.0.2.0/24"], "accept", False, False),
]


def rule(entries: list[str] | None, action: str, name: str = "x", **more: object) -> Rule:
    clients = None if entries is None else tuple(parse_entry(Kind.CLIENT, one) for one in entries)
    return Rule(name=name, action=Action(action), clients=clients, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("entries", "action", "translated", "hinted"), RULES)
def test_rules(entries, action, translated, hinted):
    """A translated client is its IPv4 client for every rule; a 6to4 one is it only to its disadvantage."""
    # Other rules before and after: the mask is of the right one.
    policy = Policy([rule(["198.51.100.9"], "reject"), rule(entries, action), rule(None, "greylist")])
    for source, wanted in ((IS, translated), (SAYS, hinted)):
        maybe = policy.connect(source.packed, "mail.example", source.carried).maybe
        assert bool(maybe & 2) is wanted
        assert (maybe & 1, maybe & 4) == (0, 4)


@pytest.mark.parametrize("source", [IS, SAYS])
def test_lists(source):
    """A blocklist has its say on both; an allowlist does not vouch for an address that may be another's."""
    policy = Policy(
        [
            rule(None, "reject", "bl", lists=(ListEntry.parse("bl.test"),)),
            rule(None, "accept", "wl", lists=(ListEntry.parse("wl.test"),)),
            rule(None, "greylist", "rest"),
        ]
    )
    facts = policy.connect(source.packed, None, source.carried)
    assert policy.questions(facts) == (("bl.test", "wl.test") if source is IS else ("bl.test",))
    code = (bytes((127, 0, 0, 2)),)
    for listed, wanted in (("bl.test", "bl"), ("wl.test", "wl" if source is IS else "rest")):
        answers = {zone: Answer(code if zone == listed else ()) for zone in policy.zones}
        verdict = judge(policy, Facts(facts.maybe, facts.maybe, answers))
        assert isinstance(verdict, Verdict)
        assert verdict.rule is not None
        assert verdict.rule.name == wanted
        # What is on record leads there again.
        way = retrace(policy, Question(source.text), answers, {z: z for z in policy.zones}, wanted)
        assert way.agrees


def test_the_default_rules_trust_nobody_more():
    """No address that carries one of ours is let in by the rules that an empty file means."""
    clients = next(tuple(r["clients"]) for r in DEFAULT_RULES if r.get("name") == "local")
    policy = Policy([rule(list(clients), "accept"), rule(None, "greylist")])
    for text in ("64:ff9b::127.0.0.1", "::ffff:0:127.0.0.1", "2002:7f00:1::", "2001::80ff:fffe"):
        source = READER.read(text)
        assert policy.trusted(policy.connect(source.packed, None, source.carried)) is None


def test_check_takes_the_lengths_of_the_rfc():
    """Every length of RFC 6052 is taken and no other."""
    for length in range(129):
        network = IPv6Network(("2001:db8::", length), strict=False)
        if length in clientaddress.LENGTHS:
            clientaddress.check_nat64(network)
        else:
            with pytest.raises(ValueError, match="RFC 6052"):
                clientaddress.check_nat64(network)
    assert IPv4Network("192.0.2.0/24") == READER.network(IPv4Network("192.0.2.0/24"))
