"""The words of a refusal: which list's, where from, and how long they are waited for."""

from __future__ import annotations

import time

from hybridgrey.lists.awaited import run
from hybridgrey.policy.judge import Action
from lists.asking import LISTED, asked, gather, one, reason, resolver, sockets_are_closed
from parts.base import wait_until
from parts.fakedns import FakeDns
from parts.rbldnsd import Rbldnsd, ip4set


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
