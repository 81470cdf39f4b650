"""What one recipient costs: facts are asked for in their order, and only where they can change a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from hybridgrey.config import load
from hybridgrey.envelope import Mailbox, read
from hybridgrey.filter.awaited import Awaited, Call, Steps
from hybridgrey.filter.screen import Decision, Screen
from hybridgrey.greylist.triplets import Greylist, State
from hybridgrey.lists import zones
from hybridgrey.lists.awaited import wait_for
from hybridgrey.lists.resolver import Resolver
from hybridgrey.outcome import Outcome
from hybridgrey.policy.conditions import UNKNOWN, ByHand, Hand, Results, Spf, Unknown
from hybridgrey.policy.judge import Action, Policy, Rule
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.spf.evaluate import Identity
from hybridgrey.spf.evaluate import Outcome as Checked
from hybridgrey.spf.record import Result
from hybridgrey.store.connection import Script, StoreError
from parts.fakedns import FakeDns
from parts.greyterms import GreyTerms

CLIENT = "192.0.2.1"
SENDER, RECIPIENT = read("a@b.example"), read("c@d.example")
PROVED = Checked(Result.PASS, 300)
PASSES = Checked(Result.PASS, 300, doubt="by all")
FAILS = Checked(Result.FAIL, 300)
DEAD = Checked(Result.TEMPERROR, 0)
PASS = Results.of(["pass"])
FAIL = Results.of(["fail"])


class Chain:
    """An evaluation that says to `steps` when somebody waits for it."""

    def __init__(self, world: World) -> None:
        self.outcome: Checked | None = None
        self._world = world

    def collect(self) -> Iterator[None]:
        self._world.steps.append("spf")
        self.outcome = self._world.spf
        return
        yield

    def close(self) -> None:
        self._world.steps.append("closed")


class World:
    """The parts of a judgement; `steps` is what was asked, in its order."""

    def __init__(self, server: FakeDns) -> None:
        self.server = server
        self.steps: list[str] = []
        self.spf = PROVED
        self.state: State | str = State.NEW
        self.written_to: bool | str = False
        self.hand: ByHand | Unknown = ByHand()

    def begin(self, _identity: Identity) -> Chain:
        return Chain(self)

    def said(self, *_about: object) -> ByHand | Unknown:
        self.steps.append("by hand")
        return self.hand

    def ask(self, _sender: Mailbox) -> Call:
        return Call(Script("correspondents"), (b"x",), ())

    def read(self, reply: Sequence[int]) -> bool:
        return bool(reply[0])

    def screen(
        self, rules: Sequence[Rule], *, on_failure: str = "accept", sender_pools: bool = True
    ) -> Screen:
        config = load.default()
        store = config.store.model_copy(update={"on_failure": on_failure})
        greylist = config.greylist.model_copy(update={"sender_pools": sender_pools})
        config = config.model_copy(update={"store": store, "greylist": greylist})
        built = zones.build(rules, {})
        resolver = Resolver(built, [(self.server.host, self.server.port)], timeout=5.0)
        grey = Greylist(None, GreyTerms())  # type: ignore[arg-type]
        kind: dict[str, object] = {"by_hand": self.said, "spf": self, "correspondents": self}
        return Screen(config, Policy(rules), built, resolver, grey, **kind)  # type: ignore[arg-type]

    def judge(
        self, by: Screen, sender: Mailbox = SENDER, recipients: int = 1, client: str = CLIENT
    ) -> Decision:
        """The last of some recipients of one mail."""
        connected = by.connect(client, None)
        mail = by.mail(connected, "mx.example", sender, authenticated=False)
        for _ in range(recipients):
            decision = self._driven(by.judge(mail, RECIPIENT))
        mail.close()
        connected.close()
        return decision

    def _driven(self, steps: Steps[Decision]) -> Decision:
        try:
            awaited = next(steps)
            while True:
                if isinstance(awaited, Call):
                    awaited = self._answered(steps, awaited)
                    continue
                if self.steps[-1:] != ["lists"]:
                    self.steps.append("lists")
                awaited = steps.send(wait_for(awaited))
        except StopIteration as stop:
            assert isinstance(stop.value, Decision)
            return stop.value

    def _answered(self, steps: Steps[Decision], call: Call) -> Awaited:
        if call.script.text == "correspondents":
            self.steps.append("correspondents")
            if isinstance(self.written_to, str):
                return steps.throw(StoreError(self.written_to))
            return steps.send([int(self.written_to)])
        by_domain = b"{spf=" in call.keys[0]
        self.steps.append("domain" if by_domain else "network")
        if not isinstance(self.state, State):
            return steps.throw(StoreError(self.state))
        return steps.send([list(State).index(State.NEW if by_domain else self.state), 300, 0])


@pytest.fixture
def world() -> Iterator[World]:
    with FakeDns() as server:
        server.zone("bl.test", listed={}, delay=0.1)
        yield World(server)


REST = Rule("rest", Action.GREYLIST)
LISTS = Rule("lists", Action.REJECT, lists=(ListEntry.parse("bl.test"),))
FRIENDS = Rule("friends", Action.ACCEPT, correspondent=True)
PASSING = Rule("passing", Action.ACCEPT, spf=PASS)
FAILING = Rule("failing", Action.REJECT, spf=FAIL)
ALLOWED = Rule("allowed", Action.ACCEPT, by_hand=Hand.ALLOW)
BLOCKED = Rule("blocked", Action.REJECT, by_hand=Hand.BLOCK)

CASES = [
    # rules, what the world is like; what was asked, the rule, the outcome
    ([REST], {}, "network spf domain", "rest", "greylisted"),
    ([REST], {"state": State.KNOWN}, "network", "rest", "accepted"),
    ([REST], {"spf": PASSES}, "network spf", "rest", "greylisted"),
    ([REST], {"state": "down"}, "network", "rest", "accepted"),
    # Lists come first, SPF only for whom they let go on and the greylist does not know.
    ([LISTS, PASSING, REST], {}, "lists network spf", "passing", "accepted"),
    ([LISTS, PASSING, REST], {"state": State.KNOWN}, "lists network", "rest", "accepted"),
    ([LISTS, PASSING, REST], {"spf": FAILS}, "lists network spf", "rest", "greylisted"),
    ([LISTS, PASSING, REST], {"spf": DEAD}, "lists network spf", "rest", "greylisted"),
    ([LISTS, PASSING, REST], {"state": "down"}, "lists network", "rest", "accepted"),
    # What SPF may refuse is asked before, known or not.
    ([FAILING, REST], {"state": State.KNOWN}, "spf network", "rest", "accepted"),
    ([FAILING, REST], {"spf": FAILS}, "spf", "failing", "rejected"),
    ([FAILING, REST], {"spf": DEAD}, "spf network", "rest", "greylisted"),
    # Correspondents are looked up for whom SPF proves.
    ([FRIENDS, REST], {}, "network spf correspondents domain", "rest", "greylisted"),
    ([FRIENDS, REST], {"spf": PASSES}, "network spf", "rest", "greylisted"),
    ([FRIENDS, REST], {"written_to": True}, "network spf correspondents", "friends", "accepted"),
    ([FRIENDS, REST], {"written_to": True, "state": State.KNOWN}, "network", "rest", "accepted"),
    ([FRIENDS, REST], {"written_to": "down"}, "network spf correspondents domain", "rest", "greylisted"),
    # Entries by hand are in memory.
    ([ALLOWED, BLOCKED, LISTS, REST], {"hand": ByHand(allowed=True)}, "by hand", "allowed", "accepted"),
    ([ALLOWED, BLOCKED, LISTS, REST], {"hand": ByHand(blocked=True)}, "by hand", "blocked", "rejected"),
    (
        [ALLOWED, BLOCKED, LISTS, REST],
        {"hand": ByHand(allowed_by_spf=True)},
        "by hand lists network spf",
        "allowed",
        "accepted",
    ),
    (
        [ALLOWED, BLOCKED, REST],
        {"hand": ByHand(False, True, True)},
        "by hand spf",
        "allowed",
        "accepted",
    ),
    ([ALLOWED, REST], {"hand": UNKNOWN}, "by hand network spf domain", "rest", "greylisted"),
]


@pytest.mark.parametrize(("rules", "likeness", "asked", "rule", "outcome"), CASES)
def test_what_is_asked(
    world: World, rules: list[Rule], likeness: dict[str, object], asked: str, rule: str, outcome: str
) -> None:
    """The cheapest first, nothing that does not matter, and the chain ends with the mail."""
    for name, value in likeness.items():
        setattr(world, name, value)
    decision = world.judge(world.screen(rules))
    assert " ".join(world.steps).removesuffix(" closed") == asked
    assert ("closed" in world.steps) == ("spf" in asked.split())
    assert (decision.verdict.rule and decision.verdict.rule.name, decision.outcome) == (rule, outcome)


def test_without_sender_pools_correspondents_come_before_spf(world: World) -> None:
    """A question to the store is cheaper than one to DNS, and mostly answers it."""
    by = world.screen([FRIENDS, REST], sender_pools=False)
    assert world.judge(by).outcome is Outcome.GREYLISTED
    assert world.steps == ["network", "correspondents"]


def test_while_the_store_is_down_rules_may_still_accept(world: World) -> None:
    """With `on_failure` tempfail what SPF lets in is let in, all else is deferred."""
    world.state = "down"
    by = world.screen([PASSING, REST], on_failure="tempfail")
    assert world.judge(by).outcome is Outcome.ACCEPTED
    world.spf = FAILS
    decision = world.judge(by)
    assert (decision.outcome, decision.store_error) == (Outcome.DEFERRED, "down")
    assert decision.reply is not None
    assert decision.reply.code == "451"


def test_once_for_a_mail(world: World) -> None:
    """Further recipients ask neither SPF nor for the sender again."""
    decision = world.judge(world.screen([FRIENDS, REST]), recipients=2)
    assert world.steps == ["network", "spf", "correspondents", "domain", "network", "domain", "closed"]
    assert (decision.spf, decision.correspondent) == (Spf("pass", "b.example"), False)


def test_bounces_have_no_correspondent(world: World) -> None:
    """<> is nobody we have written to; SPF of HELO is asked for rules only."""
    world.judge(world.screen([FRIENDS, REST]), sender=read("<>"))
    assert world.steps == ["network", "spf", "closed"]


def test_what_is_remembered_of_clients_that_no_list_has(world: World) -> None:
    """Alike are those with the same rules and all answers; who is listed or has no address is judged anew."""
    world.server.zone("bl.test", listed={"192.0.2.66": "127.0.0.2"})
    by = world.screen([ALLOWED, LISTS, FRIENDS, REST])
    wanted = [
        ("unknown", None, Outcome.ACCEPTED),
        (CLIENT, State.NEW, Outcome.GREYLISTED),
        ("192.0.2.66", None, Outcome.REJECTED),
        (CLIENT, State.NEW, Outcome.GREYLISTED),
        ("192.0.2.2", State.NEW, Outcome.GREYLISTED),
        ("unknown", None, Outcome.ACCEPTED),
        ("192.0.2.66", None, Outcome.REJECTED),
    ]
    world.spf = FAILS
    for client, state, outcome in wanted:
        decision = world.judge(by, client=client)
        assert (decision.touch and decision.touch.state, decision.outcome) == (state, outcome), client
    world.hand = ByHand(allowed=True)
    assert world.judge(by).outcome is Outcome.ACCEPTED
    world.hand, world.spf, world.written_to = ByHand(), PROVED, True
    assert world.judge(by).verdict.rule is FRIENDS
