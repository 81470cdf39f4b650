"""A triplet's client is its network or, where SPF proves it, the sender's domain: on real servers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from hybridgrey.config import load
from hybridgrey.config.load import Config
from hybridgrey.envelope import Mailbox, read
from hybridgrey.filter.awaited import Call
from hybridgrey.filter.judgement import MOST_CALLS, Judgement
from hybridgrey.filter.reason import reason_of
from hybridgrey.filter.screen import Decision, Screen
from hybridgrey.greylist.triplets import Greylist, ParsedKey, State, Touch, parse_key, parse_note
from hybridgrey.hand.expected import Expected
from hybridgrey.lists.resolver import Resolver
from hybridgrey.outcome import Outcome, Reason
from hybridgrey.policy.conditions import Spf
from hybridgrey.policy.judge import Action, Policy, Rule
from hybridgrey.spf.evaluate import Identity
from hybridgrey.spf.evaluate import Outcome as Checked
from hybridgrey.spf.record import Result
from hybridgrey.store.connection import Store, StoreError
from parts.greyterms import GreyTerms
from parts.redisserver import Redis
from parts.timedstore import Timed

HOUR, DAY = 3600, 86_400
DELAY = 300
TERMS = GreyTerms(auto_allow_interval=HOUR, max_waiting=1000)
A, B, C, SIX = "192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"
SENDER, RECIPIENT = read("a@b.example"), read("c@d.example")
PROVED = Checked(Result.PASS, 300)
PASSES = Checked(Result.PASS, 300, doubt="by all")
FAILS = Checked(Result.FAIL, 300)
DEAD = Checked(Result.TEMPERROR, 0)


class Chain:
    """An evaluation whose outcome is known."""

    def __init__(self, outcome: Checked) -> None:
        self.outcome: Checked | None = None
        self._known = outcome
        self.closed = False

    def collect(self) -> Iterator[None]:
        self.outcome = self._known
        return
        yield

    def close(self) -> None:
        self.closed = True


class Carrier:
    """SPF as the test says; what was asked is in `asked`."""

    def __init__(self) -> None:
        self.says = PROVED
        self.asked: list[Identity] = []
        self.chains: list[Chain] = []

    def begin(self, identity: Identity) -> Chain:
        self.asked.append(identity)
        self.chains.append(Chain(self.says))
        return self.chains[-1]


class World:
    """A filter on a real store, whose clock and SPF are the test's."""

    def __init__(self, timed: Timed) -> None:
        self.timed = timed
        self.spf = Carrier()
        self.calls: list[Call] = []
        self.slow = 0.0
        self.failing = -1

    def screen(self, terms: GreyTerms = TERMS, config: Config | None = None, secret: str = "") -> Screen:
        rules = [Rule("the rest", Action.GREYLIST)]
        greylist = Greylist(self.timed, terms, key_secret=secret)  # type: ignore[arg-type]
        resolver = Resolver([], [("127.0.0.1", 9)], timeout=1.0)
        config = config or load.default()
        return Screen(config, Policy(rules), [], resolver, greylist, Expected(), spf=self.spf)  # type: ignore[arg-type]

    def mail(
        self,
        client: str = A,
        sender: Mailbox = SENDER,
        recipient: Mailbox = RECIPIENT,
        helo: str | None = None,
        by: Screen | None = None,
    ) -> Decision:
        """One recipient of a new connection."""
        screen = by or self.screen()
        mail = screen.mail(screen.connect(client, None), helo, sender, authenticated=False)
        steps = screen.judge(mail, recipient)
        self.calls = []
        try:
            call = next(steps)
            while True:
                assert isinstance(call, Call)
                self.calls.append(call)
                if len(self.calls) == self.failing:
                    call = steps.throw(StoreError("down"))
                else:
                    store = self.timed.store if b"hg1:expected" in call.keys else self.timed
                    call = steps.send(store.run(*call[:3]))
        except StopIteration as stop:
            decision = stop.value
        finally:
            mail.close()
        assert isinstance(decision, Decision)
        assert len(self.calls) <= MOST_CALLS
        return decision

    def triplets(self) -> dict[str, int]:
        """All triplets and counts, by the hash tag and what follows it."""
        found = {}
        for key, value in self.timed.values().items():
            if (parsed := parse_key(key)) is not None:
                found[f"{parsed.network}{' ' if parsed.sender else ''}{parsed.sender or ''}"] = value
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as part:
        yield part


@pytest.fixture
def world(server: Redis) -> Iterator[World]:
    store = Store.open(server.unix_url, 5.0)
    timed = Timed(server, store)
    timed.client.flushall()
    yield World(timed)
    timed.client.close()
    store.close()


def state(decision: Decision) -> State | None:
    return decision.touch.state if decision.touch else None


@pytest.mark.parametrize("other", [B, SIX])
def test_a_retry_from_elsewhere_passes_if_spf_proves_it(world: World, other: str) -> None:
    """And the new network knows the triplet from then on, without SPF."""
    first = world.mail(A)
    assert (state(first), first.outcome) == (State.NEW, Outcome.GREYLISTED)
    world.timed.go(DELAY)
    retry = world.mail(other)
    assert (state(retry), retry.domain, retry.outcome) == (State.PASSED, "b.example", Outcome.ACCEPTED)
    assert retry.touch == Touch(State.PASSED, 0, DELAY)
    assert reason_of(retry) is Reason.PASSED
    world.spf.says = DEAD
    asked = len(world.spf.asked)
    again = world.mail(other)
    assert (state(again), len(world.calls), len(world.spf.asked)) == (State.KNOWN, 1, asked)


@pytest.mark.parametrize("says", [PASSES, FAILS, DEAD, Checked(Result.NONE, 300)])
def test_a_retry_from_elsewhere_without_proof_waits(world: World, says: Checked) -> None:
    """A pass that proves nobody, a failure, a dead resolver: a delay, and no refusal."""
    world.mail(A)
    world.timed.go(DELAY)
    world.spf.says = says
    retry = world.mail(B)
    assert (state(retry), retry.outcome, retry.domain) == (State.NEW, Outcome.GREYLISTED, "")
    assert retry.spf is not None
    # From the first network it passes, whatever SPF is.
    assert state(world.mail(A)) is State.PASSED


def test_a_triplet_that_has_passed_asks_for_nothing(world: World) -> None:
    """Neither does a network with credit: one call, no SPF."""
    terms = dataclasses.replace(TERMS, auto_allow_after=1)
    by = world.screen(terms)
    world.spf.says = FAILS
    world.mail(A, by=by)
    world.timed.go(DELAY)
    asked = len(world.spf.asked)
    assert state(world.mail(A, by=by)) is State.PASSED
    assert len(world.calls) == 1
    assert state(world.mail(A, by=by)) is State.KNOWN
    assert state(world.mail(A, read("x@y.example"), by=by)) is State.NETWORK
    assert (len(world.calls), len(world.spf.asked)) == (1, asked)


def test_waiting_is_written_under_both_with_the_earlier_time(world: World) -> None:
    """Whichever of both knew of it first."""
    begin = world.timed.now
    world.mail(A)
    assert world.triplets() == {
        "192.0.2.0/24 a@b.example": begin,
        "spf=b.example a@b.example": begin,
    }
    world.timed.go(100)
    later = world.mail(B)
    assert (state(later), later.touch and later.touch.seconds_left) == (State.EARLY, DELAY - 100)
    assert world.triplets()["198.51.100.0/24 a@b.example"] == begin
    world.timed.go(200)
    world.spf.says = DEAD
    assert state(world.mail(B)) is State.PASSED
    # A domain that SPF did not prove at the first attempt learns of it later.
    world.timed.client.flushall()
    begin = world.timed.now
    world.mail(A)
    world.timed.go(100)
    world.spf.says = PROVED
    early = world.mail(A)
    assert (state(early), early.touch and early.touch.seconds_left) == (State.EARLY, DELAY - 100)
    assert world.triplets() == {
        "192.0.2.0/24 a@b.example": begin,
        "spf=b.example a@b.example": begin,
    }
    world.timed.go(200)
    assert state(world.mail(B)) is State.PASSED


def test_a_pass_by_network_earns_the_domain_nothing(world: World) -> None:
    """Its triplet goes on waiting there, and its count stays."""
    begin = world.timed.now
    world.mail(A)
    world.timed.go(DELAY)
    assert state(world.mail(A)) is State.PASSED
    assert world.triplets() == {
        "192.0.2.0/24 a@b.example": -begin,
        "192.0.2.0/24": 1,
        "spf=b.example a@b.example": begin,
    }


def test_a_pass_by_domain_earns_the_domain_and_is_written_to_the_network(world: World) -> None:
    """The network has the triplet, but no credit: nobody has come back from there."""
    begin = world.timed.now
    world.mail(A)
    world.timed.go(DELAY)
    world.mail(B)
    assert world.triplets() == {
        "192.0.2.0/24 a@b.example": begin,
        "198.51.100.0/24 a@b.example": -begin,
        "spf=b.example a@b.example": -begin,
        "spf=b.example": 1,
    }
    # What waits there is counted right: one first attempt of A, none of B.
    waiting = {noted[0]: value for key, value in world.timed.values().items() if (noted := parse_note(key))}
    assert waiting["192.0.2.0/24"] == ((begin - begin % (2 * DAY // 8), 1),)
    assert "198.51.100.0/24" not in waiting


def test_a_domain_has_credit_for_whom_spf_proves(world: World) -> None:
    """Five passes in five hours allow the domain; then a client without proof still waits."""
    for number in range(5):
        sender = read(f"s{'abcde'[number]}@b.example")
        assert state(world.mail(A, sender)) is State.NEW
        world.timed.go(HOUR)
        assert state(world.mail(f"198.51.{number}.1", sender)) is State.PASSED
    stranger = read("new@b.example")
    let_in = world.mail(C, stranger)
    assert (state(let_in), let_in.outcome, reason_of(let_in)) == (
        State.NETWORK,
        Outcome.ACCEPTED,
        Reason.DOMAIN,
    )
    # It is not handed to the network: without proof the same triplet waits.
    world.spf.says = PASSES
    assert world.mail("203.0.113.9", stranger).outcome is Outcome.GREYLISTED
    world.spf.says = PROVED
    assert state(world.mail(SIX, stranger)) is State.NETWORK
    assert world.mail(C, read("a@other.example")).outcome is Outcome.GREYLISTED


def test_credit_of_a_domain_is_earned_over_time(world: World) -> None:
    """One burst and one retry from elsewhere count once."""
    senders = [read(f"s{letter}@b.example") for letter in "abcdef"]
    for sender in senders:
        world.mail(A, sender)
    world.timed.go(DELAY)
    assert [state(world.mail(B, sender)) for sender in senders] == [State.PASSED] * 6
    assert world.triplets()["spf=b.example"] == 1


def test_beyond_the_bound_no_key_is_left(world: World) -> None:
    """But who is known to the domain passes."""
    by = world.screen(dataclasses.replace(TERMS, max_waiting=1))
    world.mail(A, by=by)
    world.timed.go(DELAY)
    other = read("other@b.example")
    assert state(world.mail(B, other, by=by)) is State.NEW
    before = world.timed.values()
    full = world.mail(B, read("third@b.example"), by=by)
    assert (state(full), full.outcome) == (State.FULL, Outcome.GREYLISTED)
    assert world.timed.values() == before
    passed = world.mail(B, by=by)
    assert (state(passed), passed.outcome) == (State.PASSED, Outcome.ACCEPTED)
    world.timed.client.flushall()
    world.timed.go(1)
    assert state(world.mail(A, by=by)) is State.NEW
    assert state(world.mail(B, other, by=by)) is State.NEW
    world.timed.go(10)
    early = world.mail(B, by=by)
    assert (state(early), early.touch and early.touch.seconds_left) == (State.EARLY, DELAY - 10)
    assert "198.51.100.0/24 a@b.example" not in world.triplets()


@pytest.mark.parametrize(
    ("client", "sender", "helo", "asked"),
    [
        (A, "a@b.example", "mx.example", Identity(bytes((192, 0, 2, 1)), "b.example", "a", "mx.example")),
        (A, "<>", "mx.example", Identity(bytes((192, 0, 2, 1)), "mx.example", "postmaster", "mx.example")),
        (A, "<>", None, None),
        (A, "a", "mx.example", Identity(bytes((192, 0, 2, 1)), "localhost", "a", "mx.example")),
        (A, "<a@b@c.example>", "mx.example", None),
        ("64:ff9b::c000:201", "a@b.example", None, Identity(bytes((192, 0, 2, 1)), "b.example", "a", "")),
        (
            "2002:c000:201::1",
            "a@b.example",
            None,
            Identity(bytes.fromhex("2002c0000201" + "0" * 19 + "1"), "b.example", "a", ""),
        ),
        ("unknown", "a@b.example", None, None),
    ],
)
def test_whom_spf_is_asked_about(
    world: World, client: str, sender: str, helo: str | None, asked: Identity | None
) -> None:
    """MAIL FROM, for <> HELO; behind NAT64 the IPv4 address, behind 6to4 not: anybody may have it."""
    world.mail(client, read(sender), helo=helo)
    assert world.spf.asked == ([asked] if asked else [])
    assert all(chain.closed for chain in world.spf.chains)


@pytest.mark.parametrize(
    ("client", "proves"),
    [
        ("2002:c000:201::1", False),
        ("2001:0:c000:201::3fff:fdfe", False),
        ("64:ff9b::c000:201", True),
        (SIX, True),
    ],
)
def test_an_address_that_anybody_may_have_proves_nobody(world: World, client: str, proves: bool) -> None:
    """6to4 and Teredo: who announces them to us has all their addresses (RFC 3964, RFC 6169)."""
    screen = world.screen()
    first = world.mail(client, by=screen)
    assert first.spf == Spf("pass", "b.example" if proves else "")
    assert any(key.startswith("spf=") for key in world.triplets()) is proves


def test_bounces_have_no_domain(world: World) -> None:
    """<> is nobody's, whatever HELO proves."""
    world.mail(A, read("<>"), helo="mx.example")
    world.timed.go(DELAY)
    assert state(world.mail(B, read("<>"), helo="mx.example")) is State.NEW
    assert not any(key.startswith("spf=") for key in world.triplets())


def test_switched_off_it_costs_nothing(world: World) -> None:
    """No SPF, no key, two calls at most."""
    config = load.default()
    off = config.greylist.model_copy(update={"sender_pools": False})
    by = world.screen(config=config.model_copy(update={"greylist": off}))
    world.mail(A, by=by)
    assert (len(world.calls), world.spf.asked) == (2, [])
    world.timed.go(DELAY)
    assert state(world.mail(B, by=by)) is State.NEW


@pytest.mark.parametrize(
    ("failing", "wanted"),
    [
        (1, (None, Outcome.ACCEPTED)),
        (2, (State.NEW, Outcome.GREYLISTED)),
        (3, (State.NEW, Outcome.GREYLISTED)),
    ],
)
def test_a_store_that_fails_half_way(
    world: World, failing: int, wanted: tuple[State | None, Outcome]
) -> None:
    """What the network said stands; the trouble is told."""
    world.failing = failing
    decision = world.mail(A)
    assert (state(decision), decision.outcome) == wanted
    assert decision.store_error == "down"


def test_all_calls_share_the_time(world: World) -> None:
    """The first has the store's own timeout, the others what is left of it, or are not made."""
    world.mail(A)
    assert [call.seconds is None for call in world.calls] == [True, False, False]
    left = [call.seconds for call in world.calls if call.seconds is not None]
    assert load.default().store.timeout > left[0] > left[1] > 0
    mail = world.screen().mail(world.screen().connect(A, None), None, SENDER, authenticated=False)
    judgement = Judgement(world.screen()._parts, mail, RECIPIENT)
    judgement.stored = 0.4
    assert isinstance(next(judgement._call(world.calls[0])), Call)
    with pytest.raises(StoreError, match="no time is left"):
        next(judgement._call(world.calls[0]))


def test_keys_are_hidden_with_a_secret(world: World) -> None:
    """The domain, too; its key is told from a network's all the same."""
    by = world.screen(secret="sesame")
    world.mail(A, by=by)
    world.timed.go(DELAY)
    assert state(world.mail(B, by=by)) is State.PASSED
    parsed = [one for key in world.timed.values() if (one := parse_key(key)) is not None]
    assert len(parsed) == 4
    assert all(one.hidden for one in parsed)
    assert {bool(one.domain) for one in parsed} == {True, False}
    assert not any("example" in one.network for one in parsed)


def test_a_key_by_domain_reads_back() -> None:
    """Escaped as all parts are."""
    grey = Greylist(None, TERMS)  # type: ignore[arg-type]
    triplet, count = grey.domain_keys("b.example", "a@b.example", "c@d.example")
    assert (triplet, count) == (b"hg1:{spf=b.example}:a@b.example:c@d.example", b"hg1:{spf=b.example}")
    parsed = parse_key(triplet)
    assert parsed == ParsedKey("spf=b.example", "a@b.example", "c@d.example")
    assert (parsed.domain, parsed.hidden) == ("b.example", False)
    assert parse_key(grey.domain_keys("{}%:.example", "a", "b")[1]) == ParsedKey(
        "spf={}%:.example", None, None
    )
