"""Look-ups on real sockets: a list server that misbehaves, rbldnsd, unbound, and no server at all."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rrset
import pytest

from hybridgrey.lists import exchange, lookup, upstream, zones
from hybridgrey.lists.awaited import run
from hybridgrey.lists.cache import Cache
from hybridgrey.lists.lookup import Lookup
from hybridgrey.lists.recall import Recalled
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.upstream import DOUBTED_AFTER
from hybridgrey.policy.judge import Action, Answer, Rule
from hybridgrey.policy.pattern import ListEntry
from parts.base import LOOPBACK, free_port, has_ipv6, wait_until
from parts.fakedns import FakeDns
from parts.rbldnsd import Rbldnsd, ip4set, ip6trie
from parts.unbound import Unbound

CLIENT = "192.0.2.1"
LISTED = {CLIENT: "127.0.0.2"}


class Told:
    """What a reporter was told, in order, repetitions left out."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def failing(self, kind: str, **detail: object) -> None:
        self._add(f"{kind} failing: {detail['error']}")

    def recovered(self, kind: str) -> None:
        self._add(f"{kind} recovered")

    def _add(self, event: str) -> None:
        if event not in self.events[-1:]:
            self.events.append(event)


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def build(*names: str, action: Action = Action.REJECT) -> tuple[zones.Zone, ...]:
    return zones.build([Rule(name="x", action=action, lists=tuple(map(ListEntry.parse, names)))], {})


def resolver(
    servers: list[tuple[str, int]] | FakeDns | Rbldnsd | Unbound,
    *names: str,
    action: Action = Action.REJECT,
    **options: object,
) -> Resolver:
    """A resolver for lists, `bl.test` if none is named."""
    if not isinstance(servers, list):
        servers = [(servers.host, servers.port)]
    return Resolver(build(*names or ("bl.test",), action=action), servers, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def asked(by: Resolver, client: str = CLIENT) -> Iterator[Lookup | Recalled]:
    """A look-up at all lists."""
    found = lookup.ask(by, packed(client), by.zones)
    try:
        yield found
    finally:
        found.close()


def gather(found: Lookup | Recalled, by: Resolver) -> dict[str, Answer]:
    """Wait for all lists."""
    while missing := frozenset(by.zones) - found.answers.keys():
        run(found.collect(missing))
    return found.answers


def answers(by: Resolver, client: str = CLIENT) -> dict[str, Answer]:
    with asked(by, client) as found:
        return gather(found, by)


def shown(answer: Answer) -> str:
    """Codes, whose order is the server's whim, or error of an answer."""
    return answer.error or " ".join(sorted(map(zones.code_text, answer.codes))) or "no"


def one(by: Resolver, client: str = CLIENT) -> str:
    """What the only list says."""
    (answer,) = answers(by, client).values()
    return shown(answer)


def reason(found: Lookup | Recalled) -> str:
    """The text of the only list."""
    zone, text = run(found.await_text(["bl.test"]))
    assert zone == "bl.test"
    return text


def sockets() -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
    return sum(link.startswith("socket:") for link in links)


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


# -- loss, silence, dead nameservers


@pytest.mark.parametrize(("lost", "least"), [(0, 0.0), (1, 0.39), (2, 1.19)])
def test_retransmission(lost, least):
    """A lost question is asked again after 400 ms, and then after twice that."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, drop_first=lost)
        (answer,) = answers(resolver(server, timeout=20, action=Action.ACCEPT)).values()
        assert shown(answer) == "127.0.0.2"
        assert answer.seconds >= least
        assert server.count("bl.test") == lost + 1


def test_every_fifth_datagram_lost():
    """With one of five questions lost all answers are right in the end."""
    with FakeDns() as server:
        names = [f"z{i}.test" for i in range(5)]
        for i, name in enumerate(names):
            server.zone(
                name, listed={f"192.0.2.{j}": "127.0.0.2" for j in range(0, 10, 2)}, drop_first=i == 3
            )
        by = resolver(server, *names, timeout=20, action=Action.ACCEPT)
        for j in range(10):
            wanted = "no" if j % 2 else "127.0.0.2"
            assert {shown(a) for a in answers(by, f"192.0.2.{j}").values()} == {wanted}


def test_a_loss_in_a_slow_dialogue():
    """When nobody looked before the client's time was up, a lost question still gets its second try."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, drop_first=1)
        by = resolver(server, timeout=0.3)
        with asked(by) as found:
            time.sleep(0.5)
            assert shown(gather(found, by)["bl.test"]) == "127.0.0.2"


def test_no_wait_when_the_dialogue_took_longer():
    """Answers that came during the dialogue are read without waiting, even after the client's time."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, delay=0.05)
        by = resolver(server, timeout=0.2)
        with asked(by) as found:
            time.sleep(0.4)
            found.peek()
            assert shown(found.answers["bl.test"]) == "127.0.0.2"


def test_a_late_answer_is_for_the_next_recipient():
    """After the wait a list has no vote; its late answer has one, and is cached."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, delay=0.6)
        by = resolver(server, timeout=0.2)
        with asked(by) as found:
            assert gather(found, by)["bl.test"].silent

            def arrived() -> bool:
                found.peek()
                return not found.answers["bl.test"].error

            wait_until(arrived, "the late answer")
        assert one(by) == "127.0.0.2"


def test_three_lists_in_one_round_trip():
    """Three lists that are far away take one round trip, not three."""
    with FakeDns() as server:
        names = ["a.test", "b.test", "c.test"]
        for name in names:
            server.zone(name, listed=LISTED, delay=0.7)
        by = resolver(server, *names, action=Action.ACCEPT, timeout=10.0)
        started = time.monotonic()
        assert {shown(a) for a in answers(by).values()} == {"127.0.0.2"}
        assert 0.6 < time.monotonic() - started < 1.8


def test_a_quick_list_does_not_wait_for_a_silent_one():
    """`collect` returns with the first answer among those it is asked for."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED)
        server.zone("dead.test", silent=True)
        by = resolver(server, "bl.test", "dead.test", timeout=30)
        with asked(by) as found:
            run(found.collect(frozenset(by.zones)))
            assert found.answers.keys() == {"bl.test"}
        assert sockets_are_closed(found)


def sockets_are_closed(found: Lookup) -> bool:
    return found._exchange.deaf and not found._exchange.open


def test_a_silent_list_costs_three_clients():
    """A silent list is awaited by three clients, then by nobody until it answers; told once each way."""
    told = Told()
    with FakeDns() as server:
        server.zone("bl.test", silent=True)
        by = resolver(server, timeout=0.1, reporter=told)
        for j in range(3):
            assert told.events == []
            assert one(by, f"192.0.2.{j}") == "no answer in time"
        by.timeout = 60
        started = time.monotonic()
        assert one(by) == "no answer in time"
        assert time.monotonic() - started < 20
        assert told.events == ["list:bl.test failing: no answer"]
        server.zone("bl.test", listed=LISTED)
        with asked(by) as found:
            gather(found, by)

            def back() -> bool:
                found.peek()
                return shown(found.answers["bl.test"]) == "127.0.0.2"

            wait_until(back, "the list's answer")
        assert told.events == ["list:bl.test failing: no answer", "list:bl.test recovered"]
        server.zone("bl.test", listed={"192.0.2.77": "127.0.0.2"}, delay=0.1)
        assert one(by, "192.0.2.77") == "127.0.0.2"


def test_a_list_whose_tcp_hangs_costs_three_clients():
    """A silent TCP is paid for by three clients, too; then it has a short chance to be back."""
    with FakeDns() as server:
        server.zone("bl.test", truncate=True, truncate_hangs=True)
        by = resolver(server, timeout=0.2)
        for j in range(3):
            assert one(by, f"192.0.2.{j}") == "no answer over TCP in time"
        by.timeout = 60
        started = time.monotonic()
        # Its UDP answer may not be in yet when nobody waits for it any more.
        with asked(by) as found:
            wait_until(lambda: found.peek() or found._truncated, "the truncated answer")
            assert shown(gather(found, by)["bl.test"]) == "no answer over TCP in time"
        assert time.monotonic() - started < 20
        server.zone("bl.test", truncate=True, listed=LISTED)
        with asked(by) as found:
            wait_until(lambda: found.peek() or found._truncated, "the truncated answer")
            assert shown(gather(found, by)["bl.test"]) == "127.0.0.2"
        assert by.lists.waits_for("bl.test")


def test_an_error_is_told_once_each_way():
    """A list that answers with errors, and its first good answer afterwards, are told."""
    told = Told()
    with FakeDns() as server:
        server.zone("bl.test", rcode="SERVFAIL")
        by = resolver(server, reporter=told)
        one(by)
        one(by)
        server.zone("bl.test")
        one(by)
        assert told.events == ["list:bl.test failing: SERVFAIL", "list:bl.test recovered"]


def test_next_nameserver_when_the_first_is_gone(monkeypatch):
    """A port that is closed passes the questions on at once, and soon the next nameserver comes first."""
    monkeypatch.setattr(exchange, "RETRY_AFTER", 30.0)
    told = Told()
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED)
        server.zone("wl.test", listed=LISTED)
        gone = free_port()
        servers = [(LOOPBACK, gone), (server.host, server.port)]
        by = resolver(servers, "bl.test", "wl.test", timeout=20, reporter=told)
        for j in range(4):
            wanted = "127.0.0.2" if j == 1 else "no"
            assert {shown(a) for a in answers(by, f"192.0.2.{j}").values()} == {wanted}
        assert by.servers.current == 1
        assert f"nameserver:{LOOPBACK}:{gone} failing: Connection refused" in told.events


def test_next_nameserver_when_the_first_is_silent():
    """A silent nameserver costs a client one retransmission, and three times makes the next one the first."""
    told = Told()
    with FakeDns() as dead, FakeDns() as server:
        dead.zone("bl.test", silent=True)
        server.zone("bl.test", listed=LISTED)
        by = resolver([(dead.host, dead.port), (server.host, server.port)], timeout=20, reporter=told)
        assert [one(by, f"192.0.2.{j}") for j in range(3)] == ["no", "127.0.0.2", "no"]
        assert by.servers.current == 1
        assert len(told.events) == 1
        assert told.events[0].startswith(f"nameserver:{dead.address} failing: no answer")
        count = dead.count("bl.test")
        assert one(by, "192.0.2.9") == "no"
        assert dead.count("bl.test") == count


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
def test_next_nameserver_when_the_first_answers_with_an_error(rcode, monkeypatch):
    """An error of one nameserver is not the answer while another one knows better."""
    monkeypatch.setattr(exchange, "RETRY_AFTER", 30.0)
    with FakeDns() as broken, FakeDns() as server:
        broken.zone("bl.test", rcode=rcode)
        server.zone("bl.test", listed=LISTED)
        by = resolver([(broken.host, broken.port), (server.host, server.port)], timeout=20)
        assert [one(by, f"192.0.2.{j}") for j in range(3)] == ["no", "127.0.0.2", "no"]
        assert by.servers.current == 1
        server.zone("bl.test", rcode=rcode)
        assert one(by, "192.0.2.9") == rcode


def silent_then_well(dead, server, by):
    """A first nameserver that loses its place, and is well again."""
    dead.zone("bl.test", silent=True)
    server.zone("bl.test", listed=LISTED)
    assert [one(by, f"192.0.2.{j}") for j in range(3)] == ["no", "127.0.0.2", "no"]
    assert by.servers.current == 1
    dead.zone("bl.test", listed=LISTED)
    dead.forget()


def test_a_nameserver_that_is_back_is_first_again(monkeypatch):
    """After a while one client tries it; its answer is told and gives it its place back."""
    told = Told()
    with FakeDns() as dead, FakeDns() as server:
        by = resolver([(dead.host, dead.port), (server.host, server.port)], timeout=20, reporter=told)
        silent_then_well(dead, server, by)
        assert one(by, "192.0.2.8") == "no"
        assert dead.count("bl.test") == 0  # it is too early
        later = time.monotonic() + upstream.TRY_AGAIN
        assert by.servers.turns(later) == (0, 1)
        assert by.servers.turns(later) == (1, 0)  # one client only
        monkeypatch.setattr(by.servers, "_try_at", 0.0)
        assert one(by, "192.0.2.9") == "no"
        assert dead.count("bl.test") == 1
        assert by.servers.current == 0
        assert told.events[1:] == [f"nameserver:{dead.address} recovered"]
        server.forget()
        assert one(by, "192.0.2.10") == "no"
        assert server.count("bl.test") == 0


def test_a_nameserver_that_is_not_back_costs_one_client_a_retransmission(monkeypatch):
    """Who tries it in vain is answered by the next one, which keeps its place and is not blamed."""
    told = Told()
    with FakeDns() as dead, FakeDns() as server:
        by = resolver([(dead.host, dead.port), (server.host, server.port)], timeout=20, reporter=told)
        silent_then_well(dead, server, by)
        dead.zone("bl.test", silent=True)
        for j in range(4):
            monkeypatch.setattr(by.servers, "_try_at", 0.0)
            assert one(by, f"192.0.2.{j + 10}") == "no"
        assert dead.count("bl.test") == 4
        assert by.servers.current == 1
        assert len(told.events) == 1


def test_turns_of_many_nameservers():
    """Those before the one in charge are tried by turns; one that flaps is left alone for longer."""
    servers = upstream.Nameservers([(LOOPBACK, 1), (LOOPBACK, 2), (LOOPBACK, 3)], upstream.NoReporter())
    assert not servers.troubled

    def let_down(asked, instead):
        for _ in range(upstream.SILENT_AFTER):
            servers.heard(instead, asked=asked)

    let_down(0, 1)
    let_down(1, 2)
    assert servers.usual == (2, 0, 1)
    now = time.monotonic() + 2 * upstream.TRY_AGAIN_MOST
    first = [servers.turns(now + n * upstream.TRY_AGAIN_MOST)[0] for n in range(4)]
    assert sorted(first) == [0, 0, 1, 1]
    servers.heard(1, asked=1)
    assert servers.usual == (1, 2, 0)  # the third is needed no more, the first one still away
    pauses = []
    for _ in range(8):
        servers.heard(0, asked=0)
        assert servers.usual == (0, 1, 2)
        let_down(0, 1)
        pauses.append(servers._try_after)
    assert pauses[0] == 2 * upstream.TRY_AGAIN
    assert pauses[-1] == upstream.TRY_AGAIN_MOST
    assert servers.troubled


def test_all_nameservers_gone():
    """With nobody to ask, all lists are errors when the time is up, and after a few clients at once."""
    by = resolver([(LOOPBACK, free_port()), (LOOPBACK, free_port())], "a.test", "b.test", timeout=0.3)
    for j in range(3):
        assert {shown(a) for a in answers(by, f"192.0.2.{j}").values()} == {"no answer in time"}
    by.timeout = 60
    started = time.monotonic()
    assert all(a.silent for a in answers(by).values())
    assert time.monotonic() - started < 20


def test_no_nameserver_is_an_error():
    """A resolver needs someone to ask."""
    with pytest.raises(ValueError, match="no nameserver"):
        resolver([])


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


# -- the text of a refusal


def test_text_of_a_near_list():
    """The TXT record of a list that answers quickly is waited for, and cached."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, text="Listed: %s")
        by = resolver(server)
        with asked(by) as found:
            gather(found, by)
            assert reason(found) == "Listed: %s"
            assert sockets_are_closed(found)
        with asked(by) as found:
            assert reason(found) == "Listed: %s"
        assert server.count("bl.test", "TXT") == 1


def test_text_when_the_dialogue_took_longer():
    """A client that was not waited for is no client in a hurry: its refusal gets its text."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, text="Listed")
        by = resolver(server)
        with asked(by) as found:
            time.sleep(0.1)
            gather(found, by)
            assert reason(found) == "Listed"


def test_text_of_a_far_list_is_waited_for_twice():
    """Two clients wait for the text of a far list, so that it may be learnt; no third one does."""
    clients = {f"192.0.2.{i}": "127.0.0.2" for i in range(1, 5)}
    with FakeDns() as server:
        server.zone("bl.test", listed=clients, text="Listed", delay=0.03)
        by = resolver(server, timeout=20)
        reasons = []
        for client in clients:
            with asked(by, client) as found:
                gather(found, by)
                reasons.append(reason(found))
        assert reasons == ["Listed", "Listed", "", ""]


def test_text_is_learnt():
    """A text that is the same for two clients but for their address is filled in for others."""
    data = ip4set("192.0.2.0/24", text="Listed, see http://bl.test/$")
    with Rbldnsd({"bl.test": data}) as server:
        by = resolver(server)
        for i in range(1, 5):
            with asked(by, f"192.0.2.{i}") as found:
                gather(found, by)
                assert reason(found) == f"Listed, see http://bl.test/192.0.2.{i}"
        with asked(by, "192.0.2.9") as found:
            gather(found, by)
            assert sockets_are_closed(found)
            assert reason(found) == "Listed, see http://bl.test/192.0.2.9"


def test_text_that_never_comes():
    """A list without TXT answers delays a refusal but shortly; one that has no text, not at all."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, silent_kinds=["TXT"])
        by = resolver(server, timeout=20)
        with asked(by) as found:
            gather(found, by)
            started = time.monotonic()
            assert reason(found) == ""
            assert time.monotonic() - started < 5
        assert sockets_are_closed(found)
        server.zone("bl.test", listed={"192.0.2.2": "127.0.0.2"})
        with asked(by, "192.0.2.2") as found:
            gather(found, by)
            assert reason(found) == ""


def test_one_reason_is_enough():
    """Of several lists that have the client one is asked for its text; another one if that has no vote."""
    with FakeDns() as server:
        server.zone("a.test", listed=LISTED, text="from a")
        server.zone("b.test", listed=LISTED, text="from b")
        by = resolver(server, "a.test", "b.test")
        with asked(by) as found:
            gather(found, by)
            zone, text = run(found.await_text(["a.test", "b.test"]))
            assert text == f"from {zone[0]}"
            assert server.count("test", "TXT") == 1
            other = {"a.test": "b.test", "b.test": "a.test"}[zone]
            time.sleep(0.05)
            gather(found, by)
            wait_until(lambda: run(found.await_text([other]))[1] == f"from {other[0]}", "the other's text")
        with asked(by) as found:
            assert run(found.await_text(["b.test"])) == ("b.test", "from b")
        assert server.count("test", "TXT") == 2


def test_no_text_is_asked_of_an_allowlist():
    """Only lists that may refuse are asked for a text, and only about clients that they have."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, text="x")
        one(resolver(server, action=Action.ACCEPT))
        one(resolver(server), "192.0.2.2")
        assert server.count("bl.test", "TXT") == 0


# -- descriptors and threads


def test_the_socket_is_closed_when_all_is_answered():
    """No descriptor is kept beyond the last answer, nor beyond close() without one."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED)
        server.zone("dead.test", silent=True)
        before = sockets()
        by = resolver(server, "bl.test", action=Action.ACCEPT)
        found = lookup.ask(by, packed(CLIENT), by.zones)
        assert sockets() == before + 1
        gather(found, by)
        assert sockets() == before
        again = lookup.ask(by, packed(CLIENT), by.zones)
        assert sockets() == before
        silent = lookup.ask(resolver(server, "dead.test"), packed(CLIENT), ["dead.test"])
        silent.peek()
        silent.close()
        silent.close()
        assert sockets() == before
        again.close()


def test_close_keeps_answers_for_the_next_client():
    """What has come when a client leaves reaches the cache, and nothing more is asked."""
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED, text="x")
        by = resolver(server)
        found = lookup.ask(by, packed(CLIENT), by.zones)
        wait_until(lambda: server.queries, "the question arrived")
        time.sleep(0.1)
        found.close()
        assert "bl.test" in by.cache.get(packed(CLIENT))
        assert server.count("bl.test", "TXT") == 0
        assert sockets_are_closed(found)


def test_out_of_descriptors():
    """Without a descriptor to ask with, lists are errors at once, it is told, and the next client is well."""
    told = Told()
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED)
        by = resolver(server, timeout=60, reporter=told)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with asked(by) as found:
                run(found.collect(frozenset(by.zones)))
                answer = found.answers["bl.test"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert answer.silent
        assert told.events == [f"nameserver:{server.address} failing: Too many open files"]
        assert one(by) == "127.0.0.2"
        assert told.events[1:] == [f"nameserver:{server.address} recovered"]


def test_many_threads():
    """Threads that share a resolver get the answers about their own clients."""
    wrong: list[str] = []
    with FakeDns() as server:
        listed = {f"198.51.100.{i}": f"127.0.0.{i + 2}" for i in range(0, 200, 2)}
        server.zone("a.test", listed=listed)
        server.zone("b.test", listed=dict.fromkeys(listed, "127.0.1.1"))
        by = resolver(server, "a.test", "b.test", timeout=30, action=Action.ACCEPT, cache=Cache(answers=40))

        def work(start: int) -> None:
            for i in range(start, 200, 10):
                found = [shown(a) for a in answers(by, f"198.51.100.{i}").values()]
                wanted = ["no", "no"] if i % 2 else [f"127.0.0.{i + 2}", "127.0.1.1"]
                if sorted(found) != wanted:
                    wrong.append(f"{i}: {found}")

        before = sockets()
        threads = [threading.Thread(target=work, args=(n % 10,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sockets() == before
    assert wrong == []


def test_a_list_that_begins_to_list_the_world():
    """After a few clients in a row a list is checked; one that lists anything has no vote, and comes back."""
    told = Told()
    with FakeDns() as server:
        server.zone("bl.test", listed=LISTED)
        by = resolver(server, reporter=told, timeout=3.0)
        assert one(by, "192.0.2.9") == "no"
        server.zone("bl.test", everything="127.0.0.2")
        said = [one(by, f"198.51.100.{i}") for i in range(DOUBTED_AFTER + 4)]
        assert said[DOUBTED_AFTER - 1 :] == ["lists any address, and so perhaps the world"] * 5
        assert said[: DOUBTED_AFTER - 1] == ["127.0.0.2"] * (DOUBTED_AFTER - 1)
        server.zone("bl.test", listed=LISTED)
        # Not even those who were listed before the check are still thought to be so.
        assert [one(by, f"198.51.100.{i}") for i in range(8)] == ["no"] * 8
        assert one(by) == "127.0.0.2"
    assert told.events == [
        "list:bl.test failing: lists any address, and so perhaps the world",
        "list:bl.test recovered",
    ]


@pytest.mark.parametrize("family", ["198.51.100.", "2001:db8::"])
def test_a_list_that_has_many_clients_in_a_row(family):
    """A run of listings is checked, ever more seldom, and counts: all of them are listed."""
    clients = [f"{family}{i}" for i in range(1, 61)]
    with FakeDns() as server:
        server.zone("bl.test", listed=dict.fromkeys(clients, "127.0.0.2"))
        by = resolver(server, timeout=3.0)
        assert [one(by, client) for client in clients] == ["127.0.0.2"] * len(clients)
        # After 2 clients, 4 more (less a little for each new run), and then each time 8 more.
        assert len(clients) + 8 <= server.count("bl.test", "A") <= len(clients) + 10


def test_a_check_without_an_answer_is_no_vote():
    """A list that does not answer its check has not shown that it is a list."""
    clients = [f"198.51.100.{i}" for i in range(DOUBTED_AFTER)]
    with FakeDns() as server:
        server.zone("127.bl.test", silent=True)
        server.zone("bl.test", listed=dict.fromkeys(clients, "127.0.0.2"))
        by = resolver(server, timeout=0.5)
        assert [one(by, client) for client in clients] == [
            *["127.0.0.2"] * (len(clients) - 1),
            "no answer in time",
        ]


def test_runs_that_are_common_are_not_checked_for_ever():
    """Short runs bring the suspicion back that long ones have put to sleep."""
    lists = upstream.Lists(build("bl.test"), upstream.NoReporter())
    (zone,) = build("bl.test")
    for _ in range(10):
        lists.checked(zone)
    assert [lists.doubts(zone) for _ in range(20)].index(True) == upstream.DOUBTED_AFTER_MOST - 1
    for _ in range(100):
        lists.run["bl.test"] = 0
        lists.doubts(zone)
    lists.run["bl.test"] = 0
    assert [lists.doubts(zone) for _ in range(20)].index(True) == upstream.DOUBTED_AFTER - 1


def test_an_unchecked_list_is_not_doubted():
    """A list without an unlisted test point, such as hostkarma, may list whom it likes."""
    with FakeDns() as server:
        server.zone("hostkarma.junkemailfilter.com", everything="127.0.0.1")
        by = resolver(server, "hostkarma.junkemailfilter.com")
        assert {one(by, f"198.51.100.{i}") for i in range(9)} == {"127.0.0.1"}
