"""Rules without facts that a record has not: in the end unknown makes greylist match, and all else not."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey import envelope
from hybridgrey.policy.judge import NOT_LISTED, Action, Answer, Facts, Policy, Rule, judge
from hybridgrey.policy.match import Kind, parse_entry
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.policy.rdns import Name
from hybridgrey.replay.unknown import Missing, without
from parts.laws import examples

CLIENT = bytes((192, 0, 2, 1))
LISTED = Answer((bytes((127, 0, 0, 2)),))
BOX = envelope.read("a@example.org")
HOSTS = (None, "mx.example.org", "mx.example.net", "else.example", "dsl-192-0-2-1.example.net")
HELOS = (None, "mx.example.org", "else.example")
ZONES = ("bl.example", "wl.example")


def entries(kind, *texts):
    return tuple(parse_entry(kind, text) for text in texts)


def judged(rules, host, helo, authenticated, answers):
    """The verdict when all is known."""
    policy = Policy(rules)
    mask = policy.transaction(policy.connect(CLIENT, host), helo, BOX, authenticated=authenticated)
    return judge(policy, Facts(mask, mask, answers))


def holds(rules, *facts):
    """Whether one of them matches."""
    verdict = judged(rules, *facts)
    return verdict.rule is not None or bool(verdict.noted)


CLIENTS = st.lists(
    st.sampled_from(
        ["192.0.2.1", "198.51.100.1", "mx.example.org", "!mx.example.net", "!192.0.2.1", "!198.51.100.1"]
    ),
    min_size=1,
    max_size=3,
    unique=True,
)
RULES = st.builds(
    Rule,
    name=st.just("r"),
    action=st.sampled_from(list(Action)),
    clients=st.none() | st.just(()) | CLIENTS.map(lambda texts: entries(Kind.CLIENT, *texts)),
    helo=st.none()
    | st.just(())
    | st.sampled_from(["mx.example.org", "!mx.example.org"]).map(lambda text: entries(Kind.HELO, text)),
    authenticated=st.none() | st.booleans(),
    lists=st.lists(
        st.builds(ListEntry, st.sampled_from(ZONES), st.none(), st.sampled_from([-2, -1, 1, 2])),
        max_size=2,
        unique_by=lambda entry: entry.zone,
    ).map(tuple),
    threshold=st.integers(1, 2),
    delay=st.sampled_from([None, 100]),
    rdns=st.sampled_from([None, frozenset({Name.NONE}), frozenset({Name.NAMED, Name.GENERIC})]),
)
MISSING = st.builds(
    Missing, st.booleans(), st.booleans(), st.booleans(), st.sets(st.sampled_from(ZONES)).map(frozenset)
)
ANSWERS = st.fixed_dictionaries({zone: st.sampled_from([LISTED, NOT_LISTED]) for zone in ZONES})


@given(RULES, MISSING, st.sampled_from(HOSTS), st.sampled_from(HELOS), st.booleans(), ANSWERS)
@settings(max_examples=examples(400), deadline=None)
def test_unknown_is_every_possibility(rule, missing, host, helo, authenticated, answers):
    """A rule holds as it does for some (greylist) or for all (else) that the missing facts can be."""
    known = {zone: answer for zone, answer in answers.items() if zone not in missing.zones}
    possible = [
        holds([rule], a, b, c, known | dict(zip(sorted(missing.zones), said, strict=True)))
        for a in (HOSTS if missing.host else (host,))
        for b in (HELOS if missing.helo else (helo,))
        for c in ((False, True) if missing.authenticated else (authenticated,))
        for said in product((LISTED, NOT_LISTED), repeat=len(missing.zones))
    ]
    wanted = any(possible) if rule.action is Action.GREYLIST else all(possible)
    facts = (
        None if missing.host else host,
        None if missing.helo else helo,
        authenticated and not missing.authenticated,
        known,
    )
    rules = without(rule, missing)
    assert holds(rules, *facts) == wanted
    if rule.action is Action.GREYLIST and wanted:
        # Its own delay is for whom it holds without doubt.
        assert judged(rules, *facts).delay == (rule.delay if all(possible) else None)


@pytest.mark.parametrize(
    ("action", "weights", "listed", "matches"),
    [
        (Action.REJECT, (2, -2), True, False),
        (Action.REJECT, (2, -1), True, True),
        (Action.REJECT, (1, 2), False, False),
        (Action.GREYLIST, (2, -2), True, True),
        (Action.GREYLIST, (1, 2), False, True),
        (Action.GREYLIST, (1, -2), False, False),
    ],
)
def test_a_list_that_is_not_in_the_record(action, weights, listed, matches):
    """The first list is known, the second is not."""
    lists = tuple(ListEntry(zone, None, weight) for zone, weight in zip(ZONES, weights, strict=True))
    rules = without(Rule("r", action, lists=lists), Missing(zones=frozenset(ZONES[1:])))
    assert holds(rules, None, None, False, {ZONES[0]: LISTED if listed else NOT_LISTED}) is matches
