"""Lists and nameservers that lose, keep silent, come late or are gone: what that costs, and whom."""

from __future__ import annotations

import time

import pytest

from hybridgrey.lists import exchange, upstream
from hybridgrey.lists.awaited import run
from hybridgrey.policy.judge import Action
from lists.asking import LISTED, Told, answers, asked, gather, one, resolver, shown, sockets_are_closed
from parts.base import LOOPBACK, free_port, wait_until
from parts.fakedns import FakeDns


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
