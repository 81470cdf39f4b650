"""Sockets, descriptors and threads of look-ups."""

from __future__ import annotations

import os
import resource
import threading
import time

from hybridgrey.lists import lookup
from hybridgrey.lists.awaited import run
from hybridgrey.lists.cache import Cache
from hybridgrey.policy.judge import Action
from lists.asking import (
    CLIENT,
    LISTED,
    Told,
    answers,
    asked,
    gather,
    one,
    packed,
    resolver,
    shown,
    sockets,
    sockets_are_closed,
)
from parts.base import wait_until
from parts.fakedns import FakeDns


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
        # Others, of tests before, may have been collected meanwhile.
        assert sockets() <= before
    assert wrong == []
