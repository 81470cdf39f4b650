"""Zone health: what test points say, and the prober on real list servers."""

from __future__ import annotations

import re
import threading
import time

import pytest

from hybridgrey.config.settings import Zone as Settings
from hybridgrey.lists import health, lookup, zones
from hybridgrey.lists.awaited import run
from hybridgrey.lists.health import Condition, Prober, assess, points
from hybridgrey.lists.resolver import Resolver
from hybridgrey.metrics.series import HEALTH
from hybridgrey.policy.judge import Action, Answer, Rule
from hybridgrey.policy.pattern import ListEntry
from parts.base import LOOPBACK, free_port, wait_until
from parts.fakedns import FakeDns
from parts.rbldnsd import Rbldnsd, ip4set, ip6trie
from parts.unbound import Unbound


class Told:
    """What a reporter was told, with repetitions."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def failing(self, kind: str, **detail: object) -> None:
        self.events.append(f"{kind} failing: {detail['reason']}")

    def recovered(self, kind: str) -> None:
        self.events.append(f"{kind} recovered")


def build(*names: str, **settings: Settings) -> tuple[zones.Zone, ...]:
    rule = Rule(name="x", action=Action.REJECT, lists=tuple(map(ListEntry.parse, names)))
    return zones.build([rule], {name.replace("_", "."): given for name, given in settings.items()})


def code(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


NO = ""
SILENT = "no answer in time"
CASES = [
    # zone, answers at listed, unlisted, unlisted6 and perhaps listed6, else as the first; each a code, an
    # error, NO, or None for not asked; state, part of the reason
    ("bl.test", ("127.0.0.2", NO, NO), Condition.HEALTHY, ""),
    ("bl.test", ("127.0.0.4", NO, NO), Condition.HEALTHY, ""),
    ("bl.test", ("127.0.0.2", "127.0.0.2", NO), Condition.SUSPENDED, "lists the test address 127.0.0.1"),
    ("bl.test", (NO, "127.0.0.2", NO), Condition.SUSPENDED, "lists the test address 127.0.0.1"),
    ("bl.test", (SILENT, "127.0.0.2", SILENT), Condition.SUSPENDED, "lists the test address 127.0.0.1"),
    (
        "bl.test",
        ("127.0.0.2", NO, "127.0.0.2"),
        Condition.SUSPENDED,
        "lists the test address ::ffff:127.0.0.1",
    ),
    ("bl.test", ("127.0.0.2", NO, "SERVFAIL"), Condition.HEALTHY, ""),
    ("bl.test", ("127.0.0.2", NO, "REFUSED"), Condition.HEALTHY, ""),
    ("bl.test", ("127.0.0.2", NO, SILENT), Condition.HEALTHY, ""),
    ("bl.test", ("91.195.240.117",) * 3, Condition.SUSPENDED, "outside 127.0.0.0/8"),
    ("bl.test", ("91.195.240.117", NO, NO), Condition.SUSPENDED, "outside 127.0.0.0/8"),
    ("bl.test", ("127.255.255.254",) * 3, Condition.SUSPENDED, "query refused"),
    ("bl.test", ("127.255.255.254", SILENT, SILENT), Condition.SUSPENDED, "query refused"),
    ("bl.test", ("REFUSED",) * 3, Condition.SUSPENDED, "REFUSED"),
    ("bl.test", ("REFUSED", SILENT, SILENT), Condition.SUSPENDED, "REFUSED"),
    ("bl.test", ("SERVFAIL",) * 3, Condition.SILENT, "SERVFAIL"),
    ("bl.test", (SILENT,) * 3, Condition.SILENT, SILENT),
    ("bl.test", ("127.0.0.2", SILENT, NO), Condition.SILENT, SILENT),
    ("bl.test", (SILENT, NO, NO), Condition.SILENT, SILENT),
    ("bl.test", (NO, NO, NO, "127.0.0.2"), Condition.HEALTHY, ""),
    ("bl.test", ("127.0.0.2", NO, NO, NO), Condition.HEALTHY, ""),
    ("bl.test", ("127.0.0.2", NO, NO, "REFUSED"), Condition.HEALTHY, ""),
    ("bl.test", (NO, NO, NO), Condition.WARNING, "does not list its test address 127.0.0.2"),
    ("list.dnswl.org", ("127.0.0.255",) * 3, Condition.SUSPENDED, "error code"),
    ("list.dnswl.org", ("127.0.10.3",) * 3, Condition.SUSPENDED, "error code"),
    # It knows who is not listed, so it does answer us.
    ("list.dnswl.org", ("127.0.10.0", NO, NO), Condition.WARNING, "error code"),
    ("hostkarma.junkemailfilter.com", ("127.0.0.2", None, None), Condition.HEALTHY, ""),
    ("hostkarma.junkemailfilter.com", ("91.195.240.117", None, None), Condition.SUSPENDED, "outside"),
    ("off.test", (None, None, None), Condition.UNCHECKED, ""),
]


def answer(zone: zones.Zone, text: str) -> Answer:
    return (
        zone.answer((code(text),) if text else (), 0.5)
        if text[:1].isdigit() or not text
        else Answer(error=text)
    )


@pytest.mark.parametrize(("name", "given", "state", "reason"), CASES)
def test_judge(name, given, state, reason):
    """A list that lists the world, lies or refuses is suspended; one that is silent or empty is not."""
    (zone,) = build(name, off_test=Settings(health="off"))
    kinds = ("listed", "unlisted", "unlisted6", "listed6")
    given = given if len(given) == 4 else (*given, given[0])
    answers = {k: answer(zone, text) for k, text in zip(kinds, given, strict=True) if text is not None}
    assert points(zone).keys() == answers.keys()
    found = assess(zone, answers)
    assert (found.label, found.state) == (name, state)
    assert reason in found.reason
    assert bool(found.reason) is bool(reason)


RFC_5782 = {
    "listed": "127.0.0.2",
    "unlisted": "127.0.0.1",
    "listed6": "::ffff:127.0.0.2",
    "unlisted6": "::ffff:127.0.0.1",
}
POINTS = [
    # settings, wanted
    (None, RFC_5782),
    (
        Settings(unlisted="192.0.2.1"),
        {"listed": "127.0.0.2", "unlisted": "192.0.2.1", "listed6": "::ffff:127.0.0.2"},
    ),
    (
        Settings(listed="2001:db8::1"),
        {"listed": "2001:db8::1", "unlisted": "127.0.0.1", "unlisted6": "::ffff:127.0.0.1"},
    ),
    (Settings(health="off"), {}),
]


@pytest.mark.parametrize(("settings", "wanted"), POINTS)
def test_points(settings, wanted):
    """A list is asked for RFC 5782's test points, or for what the operator names."""
    (zone,) = build("bl.test", **({"bl_test": settings} if settings else {}))
    assert points(zone) == {kind: zones.test_point(text) for kind, text in wanted.items()}


def prober(server: FakeDns | Rbldnsd | Unbound, *names: str, **options: object) -> Prober:
    options.setdefault("timeout", 0.5)
    return Prober(build(*names), [(server.host, server.port)], **options)  # type: ignore[arg-type]


def states(found: list[health.Health]) -> dict[str, str]:
    return {h.label: str(h.state) for h in found}


def test_states_are_those_of_the_metrics():
    """Every state of a list has its place among those that metrics show."""
    assert set(HEALTH) == set(Condition)


def test_real_lists_are_healthy():
    """A list of rbldnsd is healthy, asked directly or through unbound; so is one of IPv6 only."""
    data = {"both.test": [ip4set(), ip6trie()], "four.test": ip4set("192.0.2.1"), "six.test": ip6trie()}
    with (
        Rbldnsd(data) as lists,
        Unbound(dict.fromkeys(data, lists.address)) as caching,
    ):
        for server in (lists, caching):
            found = prober(server, *data, timeout=10).probe_once()
            assert states(found) == dict.fromkeys(data, "healthy")
            assert all(0 < h.seconds < 10 for h in found)


def test_a_real_list_that_lists_the_world():
    """A list that lists everything, in either family, is suspended, and back when it does not."""
    world4 = ("ip4set", ":127.0.0.2:\n0.0.0.0/1\n128.0.0.0/1\n")
    world6 = ("ip6trie", ":127.0.0.2:\n0::/0\n")
    flags, shown = bytearray(2), bytearray(2)
    with Rbldnsd({"four.test": world4, "six.test": world6}, test_points=False) as lists:
        by = prober(lists, "four.test", "six.test", flags=flags, states=shown, timeout=10)
        assert states(by.probe_once()) == {"four.test": "suspended", "six.test": "suspended"}
        assert flags == b"\1\1"
        assert [HEALTH[state] for state in shown] == ["suspended", "suspended"]
        lists.update({"four.test": ip4set("127.0.0.2"), "six.test": ip6trie("::ffff:7f00:2/128")})
        assert states(by.probe_once()) == {"four.test": "healthy", "six.test": "healthy"}
        assert flags == b"\0\0"
        assert [HEALTH[state] for state in shown] == ["healthy", "healthy"]


BAD = [
    # behaviour, state
    ({"everything": "127.0.0.2"}, "suspended"),
    ({"everything": "127.255.255.254"}, "suspended"),
    ({"everything": "91.195.240.117"}, "suspended"),
    ({"rcode": "REFUSED"}, "suspended"),
    ({"rcode": "SERVFAIL"}, "silent"),
    ({"silent": True}, "silent"),
    ({"garbage": True}, "silent"),
    ({"test_points": False}, "warning"),
    ({"truncate": True}, "healthy"),
    ({"drop_first": 1}, "healthy"),
    ({"delay": 0.1}, "healthy"),
]


@pytest.mark.parametrize(("behaviour", "state"), BAD, ids=[str(row[0]) for row in BAD])
def test_one_bad_list_among_good_ones(behaviour, state):
    """The bad list is found out, and the good ones beside it are not blamed."""
    flags = bytearray(3)
    with FakeDns() as server:
        for name in ("a.test", "c.test"):
            server.zone(name)
        server.zone("bad.test", **behaviour)
        by = prober(server, "a.test", "bad.test", "c.test", flags=flags, timeout=1)
        assert states(by.probe_once()) == {"a.test": "healthy", "bad.test": state, "c.test": "healthy"}
        assert flags == bytes((0, state == "suspended", 0))


def test_test_points_are_not_doubted():
    """The answers at the test points are judged as they are, not held back for a check of the look-ups'."""
    with FakeDns() as server:
        server.zone("bl.test", everything="127.0.0.2")
        for _ in range(20):
            assert states(prober(server, "bl.test").probe_once()) == {"bl.test": "suspended"}
        assert len({query.name for query in server.queries}) == 4


def test_a_suspended_list_loses_its_vote_and_gets_it_back():
    """The look-ups of a worker skip a list from the round that suspends it to the one that finds it well."""
    flags = bytearray(1)
    client = bytes((192, 0, 2, 1))
    with FakeDns() as server:
        server.zone("bl.test", everything="127.0.0.2")
        by = prober(server, "bl.test", flags=flags)
        worker = Resolver(build("bl.test"), [(server.host, server.port)], suspended=flags)
        by.probe_once()
        assert lookup.ask(worker, client, ["bl.test"]).answers["bl.test"].error == "suspended"
        server.zone("bl.test", listed={"192.0.2.1": "127.0.0.3"})
        by.probe_once()
        found = lookup.ask(worker, client, ["bl.test"])
        run(found.collect(frozenset(["bl.test"])))
        found.close()
        assert found.answers["bl.test"].codes == (code("127.0.0.3"),)


@pytest.mark.parametrize("behaviour", [{"silent": True}, {"rcode": "SERVFAIL"}])
def test_silence_does_not_end_a_suspension(behaviour):
    """A suspended list that falls silent stays suspended, until it answers well."""
    flags = bytearray(1)
    with FakeDns() as server:
        server.zone("bl.test", everything="127.0.0.2")
        by = prober(server, "bl.test", flags=flags)
        by.probe_once()
        server.zone("bl.test", **behaviour)
        assert states(by.probe_once()) == {"bl.test": "suspended"}
        assert flags == b"\1"
        server.zone("bl.test")
        assert states(by.probe_once()) == {"bl.test": "healthy"}
        assert flags == b"\0"


def test_a_new_prober_takes_the_flags_over():
    """The flags outlive the process that set them: the next one goes on from there."""
    flags = bytearray(b"\1")
    with FakeDns() as server:
        server.zone("bl.test", silent=True)
        by = prober(server, "bl.test", flags=flags)
        assert states(by.probe_once()) == {"bl.test": "suspended"}
        off = Prober(
            build("bl.test", bl_test=Settings(health="off")), [(server.host, server.port)], flags=flags
        )
        assert states(off.probe_once()) == {"bl.test": "unchecked"}
        assert flags == b"\0"


def test_no_nameserver_suspends_nobody():
    """Without anybody to ask, lists are silent; none is suspended for it."""
    flags = bytearray(2)
    by = Prober(build("a.test", "b.test"), [(LOOPBACK, free_port())], flags=flags, timeout=0.3)
    assert states(by.probe_once()) == {"a.test": "silent", "b.test": "silent"}
    assert flags == b"\0\0"


def test_no_list_to_ask():
    """A configuration without lists, or with unchecked ones only, needs no question."""
    server = [(LOOPBACK, free_port())]
    assert Prober((), server).probe_once() == []
    off = Prober(build("bl.test", bl_test=Settings(health="off")), server)
    assert states(off.probe_once()) == {"bl.test": "unchecked"}


def test_changes_are_told_by_label():
    """A suspension is told under the list's label, never its name, which may hold a key."""
    told = Told()
    name = "0123456789abcdef.zen.dq.spamhaus.net"
    with FakeDns() as server:
        server.zone(name, everything="127.0.0.2")
        server.zone("zen.spamhaus.org")
        by = prober(server, name, "zen.spamhaus.org", reporter=told)
        by.probe_once()
        # Under whichever of its test addresses answered in time.
        found = [re.sub(r"address \S+,", "address,", event) for event in told.events]
        assert found == [
            "zone:zen.spamhaus.org failing: lists the test address, and so perhaps the world",
            "test point:zen.spamhaus.org recovered",
        ]
        server.zone(name, test_points=False)
        told.events.clear()
        by.probe_once()
        assert told.events == [
            "zone:zen.spamhaus.org recovered",
            "test point:zen.spamhaus.org failing: does not list its test address 127.0.0.2",
        ]


def test_silence_is_no_recovery():
    """A list that has ceased to answer is not told to be well, whatever was wrong with it before."""
    told = Told()
    with FakeDns() as server:
        server.zone("bl.test", test_points=False)
        server.zone("world.test", everything="127.0.0.2")
        by = prober(server, "bl.test", "world.test", reporter=told)
        by.probe_once()
        assert {event.partition(" failing")[0] for event in told.events} >= {
            "test point:bl.test",
            "zone:world.test",
        }
        told.events.clear()
        for name in ("bl.test", "world.test"):
            server.zone(name, rcode="SERVFAIL")
        by.probe_once()
        assert not [event for event in told.events if "recovered" in event]
        for name in ("bl.test", "world.test"):
            server.zone(name)
        by.probe_once()
        assert {"test point:bl.test recovered", "zone:world.test recovered"} <= set(told.events)


def test_no_list_at_all_is_told_once():
    """When no list is as it should be the nameservers are named, and that they are well again is told."""
    told = Told()
    with FakeDns() as server:
        for name in ("one.test", "two.test", "three.test"):
            server.zone(name, test_points=False)
        by = prober(server, "one.test", "two.test", "three.test", reporter=told)
        by.probe_once()
        assert [event for event in told.events if event.startswith("lists ")] == [
            "lists failing: none answers its test addresses as it should: ask them through another nameserver"
        ]
        server.zone("two.test")
        told.events.clear()
        by.probe_once()
        assert "lists recovered" in told.events


def test_run_asks_suspended_lists_more_often():
    """The task asks all lists, then only the suspended ones until they are well, and ends when told."""
    flags = bytearray(2)
    with FakeDns() as server:
        server.zone("good.test")
        server.zone("bad.test", everything="127.0.0.2")
        by = prober(
            server, "good.test", "bad.test", flags=flags, timeout=5, interval=600, suspended_interval=0.1
        )
        stop = threading.Event()
        thread = threading.Thread(target=by.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: server.count("bad.test") >= 12, "three rounds")
            assert flags == b"\0\1"
            assert server.count("good.test") == 4
            server.zone("bad.test")
            wait_until(lambda: flags == b"\0\0", "the list is back")
            time.sleep(0.2)
            seen = len(server.queries)
            time.sleep(0.4)
            assert len(server.queries) == seen
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()


def test_run_does_not_repeat_the_first_round():
    """After a round at the start the task waits for its time."""
    with FakeDns() as server:
        server.zone("bl.test")
        by = prober(server, "bl.test")
        by.probe_once()
        stop = threading.Event()
        thread = threading.Thread(target=by.run, args=(stop,))
        thread.start()
        time.sleep(0.3)
        stop.set()
        thread.join(20)
        assert server.count("bl.test") == 4


def test_the_first_round_is_short():
    """Silent lists hold the start up for less than a second; one that lists the world is out by then."""
    flags = bytearray(3)
    with FakeDns() as server:
        server.zone("silent.test", silent=True)
        server.zone("world.test", everything="127.0.0.2")
        server.zone("slow.test", everything="127.0.0.2", delay=1.2)
        by = prober(server, "silent.test", "world.test", "slow.test", flags=flags, timeout=3)
        begun = time.monotonic()
        by.probe_first()
        # Its bound is 0.7 s, the next longer time 3 s.
        assert time.monotonic() - begun < 2.5
        assert flags == b"\0\1\0"
        asked = server.count("world.test")
        stop = threading.Event()
        thread = threading.Thread(target=by.run, args=(stop,))
        thread.start()
        try:
            wait_until(lambda: flags == b"\0\1\1", "the slow one was asked again")
        finally:
            stop.set()
            thread.join(20)
        assert server.count("world.test") == asked


def test_rounds_are_jittered():
    """The time between rounds varies, within a fifth, so that hosts do not fall into step."""
    pauses = {health._jittered(300) for _ in range(100)}
    assert len(pauses) > 50
    assert min(pauses) >= 240
    assert max(pauses) <= 360
