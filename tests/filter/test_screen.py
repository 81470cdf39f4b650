"""A judgement by hand: what it awaits, what it makes of what comes, and that the driver does not matter."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridgrey.config import load
from hybridgrey.config.load import Config
from hybridgrey.envelope import read
from hybridgrey.filter.awaited import Answers, Awaited, Call, OverTcp, Steps
from hybridgrey.filter.blocking import Blocking
from hybridgrey.filter.screen import Decision, Screen
from hybridgrey.greylist.triplets import SCRIPT, Greylist, State
from hybridgrey.lists import zones
from hybridgrey.lists.awaited import wait_for
from hybridgrey.lists.resolver import Resolver
from hybridgrey.policy.judge import Action, Policy, Rule
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.store.connection import Script, StoreError
from parts.fakedns import FakeDns
from parts.greyterms import GreyTerms

CLIENT = "192.0.2.1"
LISTED = {CLIENT: "127.0.0.2"}
SENDER, RECIPIENT = read("a@b.example"), read("c@d.example")
NEW = [list(State).index(State.NEW), 300, 0]
KNOWN = [list(State).index(State.KNOWN), 0, 1]


class Store:
    """A store that answers what it is told to, or fails."""

    def __init__(self, answer: Sequence[int] | str) -> None:
        self.answer = answer

    def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes | int],
        _seconds: float | None = None,
    ) -> list[int]:
        assert script is SCRIPT
        if isinstance(self.answer, str):
            raise StoreError(self.answer)
        return list(self.answer)


@pytest.fixture
def dns() -> Iterator[FakeDns]:
    with FakeDns() as server:
        yield server


def screen(server: FakeDns, config: Config | None = None, *, timeout: float = 5.0) -> Screen:
    rules = [
        Rule("bl", Action.REJECT, lists=(ListEntry.parse("bl.test"),)),
        Rule("the rest", Action.GREYLIST),
    ]
    built = zones.build(rules, {})
    resolver = Resolver(built, [(server.host, server.port)], timeout=timeout)
    greylist = Greylist(Store(""), GreyTerms())  # type: ignore[arg-type]  # it is not asked for anything
    return Screen(config or load.default(), Policy(rules), built, resolver, greylist)


def judgement(by: Screen, client: str = CLIENT) -> Steps[Decision]:
    """One recipient of a client that has just connected."""
    transaction = by.mail(by.connect(client, None), None, SENDER, authenticated=False)
    return by.judge(transaction, RECIPIENT)


def result(steps: Steps[Decision], value: object) -> Decision:
    """What a judgement comes to when it is resumed for the last time."""
    with pytest.raises(StopIteration) as end:
        steps.throw(value) if isinstance(value, StoreError) else steps.send(value)
    assert isinstance(end.value.value, Decision)
    return end.value.value


def until_call(steps: Steps[Decision]) -> tuple[Call, list[Awaited]]:
    """The call of the store that a judgement comes to, and what it has waited for before."""
    waits: list[Awaited] = []
    awaited = next(steps)
    while not isinstance(awaited, Call):
        waits.append(awaited)
        awaited = steps.send(wait_for(awaited))
    return awaited, waits


def test_it_awaits_answers_and_then_the_store(dns: FakeDns) -> None:
    """The exchange to watch, until when at most; then the call of the triplet."""
    dns.zone("bl.test", delay=0.05)
    steps = judgement(screen(dns))
    call, waits = until_call(steps)
    assert waits
    for awaited in waits:
        assert isinstance(awaited, Answers)
        assert awaited.until <= awaited.exchange.due
    assert call.script is SCRIPT
    assert call.keys[0] == b"hg1:{192.0.2.0/24}:a@b.example:c@d.example"
    decision = result(steps, NEW)
    assert decision.outcome == "greylisted"
    assert decision.reply is not None
    assert decision.reply.code == "450"


def test_descriptors_to_watch(dns: FakeDns) -> None:
    """While answers are awaited there is a descriptor to watch, afterwards none, and none of ours is left."""
    dns.zone("bl.test", delay=0.05)
    steps = judgement(screen(dns))
    awaited = next(steps)
    assert isinstance(awaited, Answers)
    assert len(awaited.exchange.filenos()) == 1
    while isinstance(awaited, Answers):
        exchange = awaited.exchange
        awaited = steps.send(wait_for(awaited))
    assert exchange.deaf
    assert exchange.filenos() == []


def test_resumed_for_nothing_it_awaits_the_same(dns: FakeDns) -> None:
    """A driver may resume it at any time; what is missing is still awaited."""
    dns.zone("bl.test", silent=True)
    steps = judgement(screen(dns, timeout=60))
    first = next(steps)
    assert isinstance(first, Answers)
    for _ in range(5):
        again = steps.send(None)
        assert isinstance(again, Answers)
        assert again.exchange is first.exchange
    steps.close()


@pytest.mark.parametrize(("on_failure", "code"), [("accept", None), ("tempfail", "451")])
def test_an_error_of_the_store_is_thrown_in(dns: FakeDns, on_failure: str, code: str | None) -> None:
    """What the configuration says of a store that is down; the error is in the decision."""
    dns.zone("bl.test")
    config = load.default().model_copy()
    config = config.model_copy(update={"store": config.store.model_copy(update={"on_failure": on_failure})})
    steps = judgement(screen(dns, config))
    until_call(steps)
    decision = result(steps, StoreError("gone"))
    assert decision.store_error == "gone"
    assert (decision.reply.code if decision.reply else None) == code


def test_a_reply_that_is_none_is_an_error_of_the_store(dns: FakeDns) -> None:
    """Not an exception that ends the judgement without a verdict."""
    dns.zone("bl.test")
    steps = judgement(screen(dns))
    until_call(steps)
    assert "does not give" in result(steps, [99, 0, 0]).store_error


def test_a_truncated_answer_is_awaited_over_tcp(dns: FakeDns) -> None:
    """The question, the nameserver that has it, and the time that is left; without an answer: no vote."""
    dns.zone("bl.test", truncate=True, listed=LISTED)
    steps = judgement(screen(dns))
    awaited = next(steps)
    while isinstance(awaited, Answers):
        awaited = steps.send(wait_for(awaited))
    assert isinstance(awaited, OverTcp)
    assert awaited.question == b"\x011\x012\x010\x03192\x02bl\x04test\0\0\x01\0\x01"
    assert awaited.server == (socket.AF_INET, (dns.host, dns.port))
    assert 0 < awaited.seconds <= 5
    assert isinstance(steps.send(None), Call)


def test_who_gives_up_leaves_nothing(dns: FakeDns) -> None:
    """A judgement that is closed while it waits, as its MTA has gone; the client closes its sockets."""
    dns.zone("bl.test", silent=True)
    by = screen(dns)
    client = by.connect(CLIENT, None)
    steps = by.judge(by.mail(client, None, SENDER, authenticated=False), RECIPIENT)
    awaited = next(steps)
    assert isinstance(awaited, Answers)
    steps.close()
    client.close()
    assert awaited.exchange.deaf


WORLDS = st.fixed_dictionaries(
    {
        "bl": st.sampled_from(
            [{}, {"listed": LISTED}, {"rcode": "SERVFAIL"}, {"truncate": True, "listed": LISTED}]
        ),
        "store": st.sampled_from([NEW, KNOWN, "down"]),
        "idle": st.lists(st.integers(0, 3), max_size=6),
    }
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=WORLDS)
def test_the_driver_does_not_matter(dns: FakeDns, world: dict[str, object]) -> None:
    """Waits that block, or turns of a loop that comes too early now and then: the same verdict and reply."""
    dns.zone("bl.test", **world["bl"])  # type: ignore[arg-type]
    store = Store(world["store"])  # type: ignore[arg-type]
    blocked = Blocking(store).run(judgement(screen(dns)))
    in_turns = driven(judgement(screen(dns)), store, list(world["idle"]))  # type: ignore[call-overload]
    assert in_turns[:4] == blocked[:4]


def driven(steps: Steps[Decision], store: Store, idle: list[int]) -> Decision:
    """As an event loop does it, resumed `idle` times for nothing before each wait."""
    try:
        awaited = next(steps)
        while True:
            for _ in range(idle.pop() if idle else 0):
                if isinstance(awaited, Answers):
                    awaited = steps.send(None)
            if not isinstance(awaited, Call):
                awaited = steps.send(wait_for(awaited))
                continue
            try:
                reply = store.run(*awaited)
            except StoreError as error:
                awaited = steps.throw(error)
            else:
                awaited = steps.send(reply)
    except StopIteration as stop:
        assert isinstance(stop.value, Decision)
        return stop.value
