"""The steps of a session, given by hand: no engine, no MTA, no store."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pytest

from hybridgrey import logs
from hybridgrey.config import load
from hybridgrey.config.load import Config
from hybridgrey.content import scanner
from hybridgrey.filter.blocking import Blocking
from hybridgrey.filter.followup import Events
from hybridgrey.filter.reply import Reply
from hybridgrey.filter.screen import Client, Decision, Screen
from hybridgrey.filter.session import Session, Sessions
from hybridgrey.greylist.triplets import Greylist, State
from hybridgrey.lists import zones
from hybridgrey.lists.resolver import Resolver
from hybridgrey.lists.upstream import NoReporter
from hybridgrey.outcome import Outcome, Reason
from hybridgrey.policy.conditions import Score
from hybridgrey.policy.judge import Action, Policy, Rule
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.protocol import wire
from hybridgrey.store.connection import Script, StoreError
from parts.fakedns import FakeDns
from parts.greyterms import GreyTerms

CLIENT = "192.0.2.1"
CODE = list(State).index


class Mta:
    """What an MTA tells by macros, and what was changed in its message (`session.Context`)."""

    def __init__(self, **macros: str) -> None:
        self.macros = {"j": "mx.test", "v": "Postfix 3.7", "i": "4bX1", **macros}
        self.edits: list[tuple[str, str | None, int]] = []

    def getsymval(self, name: str) -> str | None:
        return self.macros.get(name.strip("{}"))

    def addheader(self, name: str, value: str, index: int = -1) -> None:
        self.edits.append((name, value, index))

    def chgheader(self, name: str, index: int, value: str | None) -> None:
        self.edits.append((name, value, index))


class Counted:
    """What was counted (`followup.Counts`)."""

    records = False

    def __init__(self) -> None:
        self.events: list[str] = []

    def decided(self, client: Client, decision: Decision, outcome: Outcome, reason: Reason) -> None:
        self.events.append(outcome)

    def recorded(self, event: dict[str, object], written: bytes | None, at: float) -> None:
        raise AssertionError

    def opened(self) -> None:
        self.events.append("opened")

    def left(self, client: Client) -> None:
        self.events.append(f"left {client.address}")

    def closed(self) -> None:
        self.events.append("closed")


class Store:
    """A store with one answer, an error if it is a text."""

    answer: Sequence[int] | str = (0, 300, 0)

    def run(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes | int],
        _seconds: float | None = None,
    ) -> list[int]:
        if isinstance(self.answer, str):
            raise StoreError(self.answer)
        return list(self.answer)


class World:
    """A filter without an engine."""

    def __init__(self, dns: FakeDns, config: Config, *before: Rule) -> None:
        rules = [
            *before,
            Rule("bl", Action.REJECT, lists=(ListEntry.parse("bl.test"),)),
            Rule("wl", Action.ACCEPT, lists=(ListEntry.parse("wl.test"),)),
            Rule("the rest", Action.GREYLIST),
        ]
        built = zones.build(rules, {})
        self.store, self.counted, reports = Store(), Counted(), NoReporter()
        greylist = Greylist(self.store, GreyTerms())  # type: ignore[arg-type]  # gives calls only
        screen = Screen(
            config,
            Policy(rules),
            built,
            Resolver(built, [(dns.host, dns.port)]),
            greylist,
            scanner=scanner.of(config, reports),
        )
        events = Events(self.counted, screen.zones, reports, logged=False, enforced=not config.observe)
        self.sessions = Sessions(
            screen, config, log=logs.get(), events=events, reports=reports, store_well=lambda: True
        )
        self.settle = events.settle

    def begin(self, mta: Mta, client: str = CLIENT) -> Session:
        session = Session()
        self.sessions.open(session)
        self.sessions.connect(session, mta, "unknown", client)
        return session

    def rcpt(self, session: Session, mta: Mta, path: bytes = b"<c@d.example>") -> Reply | None:
        return Blocking(self.store).run(self.sessions.recipient(session, mta, path))


def config(**sections: dict[str, object]) -> Config:
    made = load.default()
    return made.model_copy(
        update={
            name: getattr(made, name).model_copy(update=values) if isinstance(values, dict) else values
            for name, values in sections.items()
        }
    )


@pytest.fixture(autouse=True)
def log() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    return stream


@pytest.fixture
def dns() -> Iterator[FakeDns]:
    with FakeDns() as server:
        server.zone("bl.test", listed={"192.0.2.99": "127.0.0.2"})
        server.zone("wl.test", listed={"192.0.2.7": "127.0.5.2"})
        yield server


HEADERS = config(headers={"greylist": True, "authentication_results": True, "remove_forged": True})


def test_a_session(dns: FakeDns) -> None:
    """A delay, a pass, the header of the message that has passed; what was counted, in its order."""
    world, mta = World(dns, HEADERS), Mta(mail_addr="a@b.example", rcpt_addr="c@d.example")
    session = world.begin(mta)
    world.sessions.hello(session, "mail.b.example")
    for answer, code in (((CODE(State.NEW), 300, 0), "450"), ((CODE(State.PASSED), 0, 400), None)):
        world.store.answer = answer
        world.sessions.mail(session, mta, b"<a@b.example>")
        reply = world.rcpt(session, mta)
        assert (reply.code if reply else None) == code
    assert world.sessions.end(session, mta) is None
    assert mta.edits == [("X-Greylist", "delayed 400 seconds by hybridgrey at mx.test", 0)]
    world.sessions.close(session)
    world.settle()
    assert world.counted.events == ["opened", "greylisted", "accepted", f"left {CLIENT}", "closed"]
    assert world.sessions.live == 0


def test_each_message_has_its_own_header(dns: FakeDns) -> None:
    """What one message's header says is not said of the next one."""
    world, mta = World(dns, HEADERS), Mta()
    session = world.begin(mta, "192.0.2.7")
    for _ in range(2):
        world.sessions.mail(session, mta, b"<a@b.example>")
        assert world.rcpt(session, mta) is None
        assert world.sessions.end(session, mta) is None
    world.sessions.end(session, mta)
    assert [edit[0] for edit in mta.edits] == ["Authentication-Results"] * 2


def test_rcpt_without_mail_or_connect(dns: FakeDns) -> None:
    """Judged by what there is: the client's address by its macro."""
    world, mta = World(dns, HEADERS), Mta(client_addr="192.0.2.99")
    session = Session()
    world.sessions.open(session)
    reply = world.rcpt(session, mta)
    assert reply is not None
    assert reply.text.startswith("Service unavailable; client [192.0.2.99] blocked using bl.test")


def test_forged_headers_go(dns: FakeDns) -> None:
    """A field that claims to be of this host is taken out at the end, others stay."""
    world, mta = World(dns, HEADERS), Mta()
    session = world.begin(mta)
    world.store.answer = (CODE(State.KNOWN), 0, 1)
    world.sessions.mail(session, mta, b"<a@b.example>")
    assert world.rcpt(session, mta) is None
    for value in (b"mx.test; dnswl=pass", b"other.test; dnswl=pass"):
        world.sessions.header(session, mta, "Authentication-Results", value)
    assert world.sessions.end(session, mta) is None
    assert mta.edits == [("authentication-results", None, 1)]


def test_observe_refuses_nothing(dns: FakeDns) -> None:
    """In observe mode all pass, and what was not delayed is not said to be."""
    world, mta = World(dns, HEADERS.model_copy(update={"mode": "observe"})), Mta()
    session = world.begin(mta)
    for answer in ((CODE(State.NEW), 300, 0), (CODE(State.PASSED), 0, 400), "gone"):
        world.store.answer = answer
        world.sessions.mail(session, mta, b"<a@b.example>")
        assert world.rcpt(session, mta) is None
        assert world.sessions.end(session, mta) is None
    assert mta.edits == []


def test_an_mta_that_goes_while_its_verdict_is_awaited(dns: FakeDns) -> None:
    """The judgement is closed, nothing is counted for it, and the session ends as any other."""
    dns.zone("bl.test", silent=True)
    world, mta = World(dns, HEADERS), Mta()
    session = world.begin(mta)
    world.sessions.mail(session, mta, b"<a@b.example>")
    steps = world.sessions.recipient(session, mta, b"<c@d.example>")
    next(steps)
    steps.close()
    world.sessions.close(session)
    world.settle()
    assert world.counted.events == ["opened", f"left {CLIENT}", "closed"]


TERMS = [
    (
        config(headers={"greylist": False, "authentication_results": False, "remove_forged": False}),
        wire.NO_HEADERS | wire.NO_HELO,
        0,
    ),
    (HEADERS, 0, wire.NO_HEADERS | wire.SILENT_CONNECT),
]


@pytest.mark.parametrize(("made", "has", "lacks"), TERMS)
def test_terms(dns: FakeDns, made: Config, has: int, lacks: int) -> None:
    """Only what something needs is asked of an MTA, and CONNECT is always answered."""
    terms = World(dns, made).sessions.terms
    assert terms.steps & has == has
    assert not terms.steps & lacks
    assert set(terms.macros) == {wire.Stage.CONNECT, wire.Stage.MAIL, wire.Stage.RCPT}


SCANNED = {"content": {"scanner": "spamd:inet:783@127.0.0.1"}}
PLAIN = {"headers": {"greylist": False, "authentication_results": False, "remove_forged": False}}


@pytest.mark.parametrize("sections", [{}, PLAIN], ids=["headers", "no headers"])
def test_a_scanner_that_no_rule_asks_costs_nothing(
    dns: FakeDns, sections: dict[str, dict[str, object]]
) -> None:
    """The same steps, actions and macros are negotiated; with a rule that asks, headers and body come."""
    without = World(dns, config(**sections)).sessions
    unasked = World(dns, config(**sections, **SCANNED)).sessions
    asked = World(
        dns, config(**sections, **SCANNED), Rule("spam", Action.GREYLIST, score=Score.parse(">=4"))
    ).sessions
    assert (unasked.terms.steps, unasked.terms.actions, unasked.terms.macros) == (
        without.terms.steps,
        without.terms.actions,
        without.terms.macros,
    )
    assert unasked.wants_end == without.wants_end
    of_message = wire.NO_HELO | wire.NO_HEADERS | wire.NO_BODY
    assert without.terms.steps & wire.NO_BODY
    assert not asked.terms.steps & of_message
    assert asked.terms.steps == without.terms.steps & ~of_message | wire.CAN_SKIP
    assert asked.terms.actions == without.terms.actions
    assert asked.wants_end
