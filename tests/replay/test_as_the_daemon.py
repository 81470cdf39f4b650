"""The law of replay: attempt by attempt what the filter does on a real store, and what that then has in it.

SPF, correspondents and expected mail are as the test says; the greylist's script runs on a real server, which
is told the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridgrey import envelope
from hybridgrey.config import load
from hybridgrey.filter.screen import Screen
from hybridgrey.greylist.triplets import Greylist, Note, note_key
from hybridgrey.lists.resolver import Resolver
from hybridgrey.policy.conditions import UNKNOWN, Results
from hybridgrey.policy.judge import Action, Policy, Rule
from hybridgrey.policy.rdns import Name
from hybridgrey.replay.messages import Attempt
from hybridgrey.replay.trial import Trial
from hybridgrey.spf.evaluate import Outcome as Checked
from hybridgrey.spf.record import Result
from hybridgrey.store.connection import Call, Store
from parts.greyterms import GreyTerms
from parts.redisserver import Redis
from parts.timedstore import BEGIN, Timed

DEFAULT = load.default()
REST = Rule("the rest", Action.GREYLIST, delay=40)
CORRESPONDENTS = Rule("correspondents", Action.ACCEPT, correspondent=True)
RULES = {
    "plain": (REST,),
    "correspondents": (CORRESPONDENTS, REST),
    "SPF": (Rule("spf", Action.ACCEPT, spf=Results(frozenset({"pass"}))), REST),
    "fails": (Rule("fails", Action.REJECT, spf=Results(frozenset({"fail"}))), CORRESPONDENTS, REST),
    "slow": (
        Rule("nameless", Action.GREYLIST, rdns=frozenset({Name.NONE}), delay=100),
        REST,
    ),
}


class Fact:
    """A fact that is asked of the store: the call that asks is its own sign, and the test answers."""

    def ask(self, _about: object) -> Call:
        return Call(self, (b"",), ())  # type: ignore[arg-type]

    @staticmethod
    def place(_about: object) -> tuple[bytes, bytes]:
        return b"", b""

    @staticmethod
    def read(reply: bool) -> bool:
        return reply


class Chain:
    def __init__(self, outcome: Checked) -> None:
        self.outcome = outcome

    def collect(self) -> Iterator[None]:
        return iter(())

    def close(self) -> None:
        pass


class Both:
    """The filter on a store, and the replay, under the same rules and terms."""

    def __init__(self, timed: Timed, rules: str, terms: GreyTerms, sender_pools: bool) -> None:
        greylist = DEFAULT.greylist.model_copy(update={**asdict(terms), "sender_pools": sender_pools})
        config = DEFAULT.model_copy(update={"rules": RULES[rules], "greylist": greylist})
        self.timed = timed
        self.trial = Trial(config)
        self.grey = Greylist(timed, terms)  # type: ignore[arg-type]
        self.expected, self.correspondents = Fact(), Fact()
        self.spf = Checked(Result.NONE, 0)
        carrier: Any = SimpleNamespace(begin=lambda _: Chain(self.spf))
        facts: Any = (self.expected, None)
        resolver = Resolver([], [("127.0.0.1", 9)], timeout=1.0)
        policy = Policy(RULES[rules])
        self.screen = Screen(
            config,
            policy,
            [],
            resolver,
            self.grey,
            *facts,
            spf=carrier,
            correspondents=self.correspondents,  # type: ignore[arg-type]
        )
        self.keys: dict[object, bytes] = {}

    def attempt(self, client: str, sender: str, spf: str, correspondent: bool, expected: bool) -> None:
        """One attempt by both: the same outcome by the same rule."""
        box, to = envelope.read(sender), envelope.read("r@example.org")
        self._named(client, box, to)
        proved = spf == "proved"
        at = Attempt(
            self.timed.now,
            client,
            None,
            "mx.example.org",
            False,
            spf="pass" if proved else spf,
            proved=proved,
            pools=(),
            correspondent=correspondent,
            expected=expected,
            score=UNKNOWN,
        )
        done = self.trial.attempt(at, box, to)
        doubt = "" if proved else "by all"
        self.spf = Checked(Result("pass" if proved else spf), 300, doubt=doubt)
        decision = self._judged(
            client, box, to, {self.correspondents: correspondent, self.expected: expected}
        )
        assert done == (decision.outcome, decision.verdict.rule.name)

    def remembers(self) -> None:
        """Replay has the keys, values and expiries of the store."""
        pure = self.trial._parts.greylist
        pure.expire(self.timed.now)
        assert {self.keys[name]: tuple(one) for name, one in pure.stored.items()} == self.timed.dump()

    def _judged(self, client: str, box: Any, to: Any, answers: dict[Any, bool]) -> Any:
        mail = self.screen.mail(self.screen.connect(client, None), "mx.example.org", box, authenticated=False)
        steps = self.screen.judge(mail, to)
        try:
            call: Any = next(steps)
            while True:
                known = answers.get(call.script)
                call = steps.send(self.timed.run(*call[:3]) if known is None else known)
        except StopIteration as stop:
            return stop.value
        finally:
            mail.close()

    def _named(self, client: str, box: Any, to: Any) -> None:
        """Which key of the store has which name."""
        who = box.key, to.key
        self.keys.update(
            zip(self.trial.names.of_network(client, *who), self.grey._all_keys(client, *who), strict=True)
        )
        triplet, count = self.grey.domain_keys(box.domain, *who)
        keys = triplet, count, note_key(count, Note.CREDIT)
        self.keys.update(zip(self.trial.names.of_domain(box.domain, *who), keys, strict=True))


@pytest.fixture(scope="module")
def timed() -> Iterator[Timed]:
    with Redis() as server:
        store = Store.open(server.unix_url, 5.0)
        yield Timed(server, store)
        store.close()


# Mostly what differs most: proved, no correspondent, retries soon; of few triplets, so that they meet.
ATTEMPTS = st.tuples(
    st.sampled_from([0, 1, 7, 20, 39, 40, 90, 300]),  # seconds since the one before
    st.sampled_from(["192.0.2.1", "192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1"]),
    st.sampled_from(["a@x.example", "a@x.example", "b@x.example", "a@y.example", "<>"]),
    st.sampled_from(["proved", "proved", "proved", "proved", "pass", "fail", "temperror"]),
    st.sampled_from([False, False, False, True]),  # a correspondent
    st.sampled_from([False, False, False, True]),  # expected
)
TERMS = st.builds(
    GreyTerms,
    retry_window=st.sampled_from([101, 800]),
    lifetime=st.sampled_from([150, 900, 5000]),
    auto_allow_after=st.sampled_from([0, 1, 2]),
    auto_allow_interval=st.sampled_from([0, 30]),
    max_waiting=st.sampled_from([0, 1, 2, 3]),
)


@given(
    rules=st.sampled_from(list(RULES)),
    terms=TERMS,
    sender_pools=st.sampled_from([True, True, False]),
    attempts=st.lists(ATTEMPTS, min_size=6, max_size=14),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_replay_is_the_filter(timed, rules, terms, sender_pools, attempts):
    """Any attempts: the same outcomes by the same rules, the same keys, values and expiries."""
    timed.client.flushall()
    timed.now = BEGIN
    both = Both(timed, rules, terms, sender_pools)
    for pause, *attempt in attempts:
        timed.go(pause)
        both.attempt(*attempt)
        both.remembers()
