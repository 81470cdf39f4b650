"""Look-ups on real sockets: a list server that misbehaves, rbldnsd, unbound, and what is known already."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import dns.flags
import dns.message
import dns.rrset
import pytest

from hybridgrey.lists.cache import Cache
from hybridgrey.lists.lookup import Lookup
from hybridgrey.lists.recall import Recalled
from hybridgrey.policy.judge import Action, Answer
from lists.asking import (
    CLIENT,
    LISTED,
    answers,
    asked,
    gather,
    one,
    packed,
    reason,
    resolver,
    shown,
    sockets,
    sockets_are_closed,
)
from parts.base import LOOPBACK, free_port, has_ipv6
from parts.fakedns import FakeDns
from parts.rbldnsd import Rbldnsd, ip4set, ip6trie
from parts.unbound import Unbound

# -- what a list may answer

BEHAVIOURS = [
    # behaviour of the list, what is made of it, whether it is cached
    ({"listed": LISTED}, "127.0.0.2", True),
    ({}, "no", True),
    ({"listed": {CLIENT: ["127.0.0.3", "127.0.0.4"]}}, "127.0.0.3 127.0.0.4", True),
    ({"listed": LISTED, "cname": "x.elsewhere.test"}, "127.0.0.2", True),
    ({"listed": LISTED, "extra": True}, "127.0.0.2", True),
    ({"extra": True}, "no", True),
    ({"listed": LISTED, "duplicate": True}, "127.0.0.2", True),
    ({"forged_first": True}, "no", True),
    ({"listed": LISTED, "forged_first": True}, "127.0.0.2", True),
    ({"listed": LISTED, "truncate": True}, "127.0.0.2", True),
    ({"truncate": True}, "no", True),
    ({"listed": LISTED, "ttl": 0}, "127.0.0.2", False),
    ({"negative_ttl": 0}, "no", False),
    ({"listed": LISTED, "delay": 0.1}, "127.0.0.2", True),
    ({"rcode": "SERVFAIL"}, "SERVFAIL", False),
    ({"rcode": "REFUSED"}, "REFUSED", False),
    ({"rcode": "FORMERR"}, "FORMERR", False),
    ({"everything": "127.255.255.254"}, "answers 127.255.255.254, query refused", False),
    ({"everything": "91.195.240.117"}, "answers 91.195.240.117, outside 127.0.0.0/8", False),
    ({"silent": True}, "no answer in time", False),
    ({"listed": LISTED, "wrong_id": True}, "no answer in time", False),
    ({"wrong_question": True}, "no answer in time", False),
    ({"garbage": True}, "no answer in time", False),
    ({"listed": LISTED, "truncate": True, "truncate_hangs": True}, "no answer over TCP in time", False),
]


@pytest.mark.parametrize(
    ("behaviour", "wanted", "cached"), BEHAVIOURS, ids=[str(row[0]) for row in BEHAVIOURS]
)
def test_answers(behaviour, wanted, cached):
    """Listings and denials are read and cached; anything else is an error without a vote and is not."""
    with FakeDns() as server:
        server.zone("bl.test", **behaviour)
        by = resolver(server, timeout=0.5)
        assert one(by) == wanted
        assert bool(by.cache.get(packed(CLIENT))) is cached
        before = server.count("bl.test", "A")
        assert one(by) == wanted
        assert (server.count("bl.test", "A") == before) is cached


@pytest.mark.parametrize("code", ["127.0.0.255", "127.0.10.3"])
def test_dnswl_over_its_quota(code):
    """The quota answers of dnswl.org are errors, its listings are not."""
    with FakeDns() as server:
        server.zone("list.dnswl.org", everything=code)
        by = resolver(server, "list.dnswl.org", action=Action.ACCEPT)
        assert one(by) == f"answers {code}, an error code of this list"
        server.zone("list.dnswl.org", everything="127.0.5.2")
        assert one(by) == "127.0.5.2"


@pytest.mark.parametrize("code", [b"\x00\x00\x00\x02", b""])
def test_tcp_that_ends_at_once(code):
    """A server that truncates and then closes the TCP connection is an error, and at once."""
    with contextlib.ExitStack() as stack:
        port = free_port()
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        tcp = stack.enter_context(socket.create_server((LOOPBACK, port)))
        udp.bind((LOOPBACK, port))

        def serve() -> None:
            wire, peer = udp.recvfrom(512)
            reply = dns.message.make_response(dns.message.from_wire(wire))
            reply.flags |= dns.flags.TC
            udp.sendto(reply.to_wire(), peer)
            connection, _ = tcp.accept()
            with connection:
                connection.recv(512)
                connection.sendall(code)

        thread = threading.Thread(target=serve)
        thread.start()
        by = resolver([(LOOPBACK, port)], timeout=20)
        assert one(by).startswith("TCP: ")
        thread.join()


def test_a_reply_from_another_address_is_never_taken():
    """The right id and question from a source that was not asked are dropped by the kernel."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        forger = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        server.bind((LOOPBACK, 0))
        forger.bind(("127.0.0.2", server.getsockname()[1]))
        by = resolver([server.getsockname()], timeout=20)
        found = stack.enter_context(asked(by))
        wire, peer = server.recvfrom(512)
        reply = dns.message.make_response(dns.message.from_wire(wire))
        honest = reply.to_wire()
        reply.answer.append(dns.rrset.from_text(reply.question[0].name, 60, "IN", "A", "127.0.0.2"))
        with contextlib.suppress(ConnectionRefusedError):
            forger.sendto(reply.to_wire(), peer)
        server.sendto(honest, peer)
        assert shown(gather(found, by)["bl.test"]) == "no"


def test_ids_and_ports_are_not_to_be_guessed():
    """Each client has a socket of its own, and each question an id of its own."""
    with FakeDns() as server:
        names = [f"z{i}.test" for i in range(100)]
        for name in names:
            server.zone(name, silent=True)
        by = resolver(server, *names)
        with asked(by) as first, asked(by, "192.0.2.2") as second:
            assert len(first._exchange.open) == len(second._exchange.open) == 100
            assert first._exchange.open.keys() != second._exchange.open.keys()
            ports = {
                s.getsockname()[1] for found in (first, second) for s in found._exchange._sockets.values()
            }
            assert len(ports) == 2


def test_a_hundred_lists():
    """A hundred lists are asked on one socket, one of them silent, and all others have their vote."""
    with FakeDns() as server:
        names = [f"z{i}.test" for i in range(100)]
        for i, name in enumerate(names):
            server.zone(name, listed={CLIENT: f"127.0.0.{i + 2}"}, silent=i == 50)
        by = resolver(server, *names, timeout=3, action=Action.ACCEPT)
        found = answers(by)
        wanted = {n: "no answer in time" if i == 50 else f"127.0.0.{i + 2}" for i, n in enumerate(names)}
        assert {name: shown(answer) for name, answer in found.items()} == wanted


# -- real list servers


def test_rbldnsd_and_unbound():
    """Real servers' listings, denials and texts are read and cached, asked directly or through a resolver."""
    data = {"bl.test": [ip4set(CLIENT, text="Listed: $"), ip6trie("2001:db8:1::/48", value="127.0.0.6")]}
    with (
        Rbldnsd(data, ttl=120) as lists,
        Unbound({"bl.test": lists.address}) as caching,
    ):
        for server in (lists, caching):
            by = resolver(server, timeout=10)
            for client, wanted in [
                (CLIENT, "127.0.0.2"),
                ("192.0.2.9", "no"),
                ("2001:db8:1::25", "127.0.0.6"),
                ("2001:db8:2::25", "no"),
            ]:
                started = time.monotonic()
                assert one(by, client) == wanted
                expires = by.cache.get(packed(client))["bl.test"][0]
                assert started + 60 < expires <= time.monotonic() + 120
            with asked(by) as found:
                assert reason(found) == f"Listed: {CLIENT}"


def test_unbound_passes_errors_on():
    """A list whose server refuses is an error behind a real resolver, and none of it is cached by us."""
    with FakeDns() as server, Unbound({"bl.test": server.address}) as caching:
        server.zone("bl.test", rcode="REFUSED")
        by = resolver(caching, timeout=20)
        assert one(by) == "SERVFAIL"
        assert not by.cache.get(packed(CLIENT))


@pytest.mark.skipif(not has_ipv6(), reason="no ::1")
def test_a_nameserver_over_ipv6():
    """A nameserver may have an IPv6 address, for UDP and TCP."""
    with FakeDns(host="::1") as server:
        server.zone("bl.test", listed=LISTED)
        server.zone("tc.test", listed=LISTED, truncate=True)
        found = answers(resolver(server, "bl.test", "tc.test"))
        assert [shown(a) for a in found.values()] == ["127.0.0.2"] * 2


# -- suspension and cache


def test_a_suspended_list_is_not_asked():
    """A list whose flag is set has no vote and no question; the flag is read for each client."""
    flags = bytearray(2)
    with FakeDns() as server:
        server.zone("a.test", listed=LISTED)
        server.zone("b.test", listed=LISTED)
        by = resolver(server, "a.test", "b.test", suspended=flags)
        flags[1] = 1
        assert [shown(a) for a in answers(by).values()] == ["suspended", "127.0.0.2"]
        assert server.count("b.test") == 0
        flags[1] = 0
        assert [shown(a) for a in answers(by).values()] == ["127.0.0.2", "127.0.0.2"]


def test_a_client_of_whom_all_is_known():
    """Its look-up asks nothing and opens no socket, and has the answers and words of the one before."""
    flags = bytearray(2)
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, text="Listed")
        server.zone("wl.test")
        by = resolver(server, "bl.test", "wl.test", suspended=flags)
        with asked(by) as found:
            assert isinstance(found, Lookup)
            before = {zone: shown(answer) for zone, answer in gather(found, by).items()}
            words = reason(found)
        count, open_before = server.count("bl.test") + server.count("wl.test"), sockets()
        with asked(by) as found:
            assert isinstance(found, Recalled)
            assert {zone: shown(answer) for zone, answer in found.answers.items()} == before
            assert reason(found) == words == "Listed"
            assert not found.heard
            assert sockets() == open_before
        assert server.count("bl.test") + server.count("wl.test") == count
        by.cache.forget("wl.test")
        with asked(by) as found:
            assert isinstance(found, Lookup)
        flags[0] = 1
        assert [shown(a) for a in answers(by).values()] == ["suspended", "no"]


def test_a_listing_without_its_words_is_no_full_knowledge():
    """The words are asked for, or filled in by what other clients were told, and then known."""
    clients = [f"192.0.2.{n}" for n in range(1, 4)]
    with Rbldnsd({"bl.test": [ip4set(*clients, text="Listed: $")]}) as lists:
        by = resolver(lists)
        for client in clients[:2]:
            with asked(by, client) as found:
                gather(found, by)
                assert reason(found) == f"Listed: {client}"
        by.cache.keep(packed(clients[2]), {"bl.test": (1e18, Answer((packed("127.0.0.2"),)), None)}, 1)
        for kind in (Lookup, Recalled):
            with asked(by, clients[2]) as found:
                assert isinstance(found, kind)
                assert isinstance(found, Recalled) or sockets_are_closed(found)
                assert reason(found) == f"Listed: {clients[2]}"


@pytest.mark.parametrize("behaviour", [{"listed": LISTED, "ttl": 1}, {"negative_ttl": 1}])
def test_the_cache_keeps_to_the_ttl(behaviour):
    """After its time to live an answer is asked for again, a denial as well."""
    # The client's network: a check of the list would be for another.
    asked = "2.0.192.bl.test"
    with FakeDns() as server:
        server.zone("bl.test", **behaviour)
        by = resolver(server, action=Action.ACCEPT)
        before = one(by)
        assert one(by) == before
        assert server.count(asked) == 1
        time.sleep(1.1)
        assert one(by) == before
        assert server.count(asked) == 2


def test_the_cache_is_bounded():
    """However many clients and lists come, the cache keeps a bounded number, the newest among them."""
    cache = Cache(answers=100)
    zones = ("a.test", "b.test", "c.test")
    for i in range(5000):
        record = {zone: (1e9, Answer(), None) for zone in zones}
        cache.keep(i.to_bytes(4, "big"), record, len(record))
        assert len(cache) <= 206
    assert (cache.get((4999).to_bytes(4, "big")) or {}).keys() == set(zones)
    assert not cache.get((4000).to_bytes(4, "big"))


def test_a_generation_ends_without_forgetting_at_once():
    """A client of the old generation is still known, and is young again when its look-up keeps an answer."""
    cache = Cache(answers=1)
    record = {"a.test": (1.0, Answer(), "text")}
    cache.keep(b"aaaa", record, 1)
    cache.keep(b"bbbb", {}, 1)
    assert cache.get(b"aaaa") is record
    cache.keep(b"aaaa", record, 1)
    assert cache.get(b"aaaa") is record
    cache.keep(b"cccc", {}, 1)
    cache.keep(b"dddd", {}, 1)
    assert cache.get(b"aaaa") is None
