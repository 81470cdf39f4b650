"""Conditions on facts that are asked for: three values, asked only where it matters, unknown harms nobody."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.address import packed
from hybridgrey.clientaddress import ClientReader
from hybridgrey.policy.conditions import (
    NO_ENTRY,
    SPF_RESULTS,
    UNKNOWN,
    ByHand,
    Hand,
    Results,
    Score,
    Spf,
    kinds,
)
from hybridgrey.policy.judge import (
    NO_POOL,
    Action,
    Answer,
    Awaited,
    Facts,
    Policy,
    Pools,
    Rule,
    Verdict,
    judge,
)
from hybridgrey.policy.match import Kind, parse_entry
from hybridgrey.policy.pattern import ListEntry
from hybridgrey.policy.trace import Question, retrace, steps
from hybridgrey.spf.record import Result
from parts.laws import examples

LISTED, NOT = Answer((bytes([127, 0, 0, 2]),)), Answer()
PASSES, PROVED, FAILS = Spf("pass"), Spf("pass", "a.example"), Spf("fail")
FACTS = ("spf", "by_hand", "correspondent", "score")


def test_results_are_those_of_the_evaluator():
    """Both have the words of RFC 7208."""
    assert set(SPF_RESULTS) == set(Result)


def accept(**conditions):
    return Rule("accept", Action.ACCEPT, **conditions)


def greylist(**conditions):
    return Rule("slow", Action.GREYLIST, delay=3600, **conditions)


def reject(**conditions):
    return Rule("reject", Action.REJECT, **conditions)


REST = Rule("rest", Action.GREYLIST)
PASS = Results.of(["pass"])
BAD = Results.of(["fail", "softfail"])
LISTS = (ListEntry.parse("bl.test"),)
GOOD_LISTS = (ListEntry.parse("wl.test"),)


def got(rules, **facts):
    """The name of the rule that decides, or the set of what is awaited."""
    mask = (1 << len(rules)) - 1
    outcome = judge(Policy(rules), Facts(mask, mask, **facts))
    if isinstance(outcome, Verdict):
        return (outcome.rule.name + "?" * outcome.unclear) if outcome.rule else None
    assert not outcome.dialogue
    awaited = {fact for fact in FACTS if getattr(outcome, fact)} | outcome.zones
    return awaited | ({"standing"} if outcome.standing else set())


CASES = [
    # SPF
    ([accept(spf=PASS), REST], {}, {"spf", "standing"}),
    ([accept(spf=PASS), REST], {"spf": PASSES}, "accept"),
    ([accept(spf=PASS), REST], {"spf": FAILS}, "rest"),
    ([accept(spf=PASS), REST], {"spf": Spf("temperror")}, "rest"),
    ([accept(spf=PASS), REST], {"spf": UNKNOWN}, "rest"),
    ([reject(spf=BAD), REST], {}, {"spf"}),
    ([reject(spf=BAD), REST], {"spf": FAILS}, "reject"),
    ([reject(spf=BAD), REST], {"spf": Spf("temperror")}, "rest"),
    ([reject(spf=Results.of(["temperror"])), REST], {"spf": Spf("temperror")}, "reject"),
    ([reject(spf=Results.of(["!temperror"])), REST], {"spf": Spf("temperror")}, "rest"),
    ([reject(spf=Results.of(["!pass"])), REST], {"spf": Spf("none")}, "reject"),
    ([reject(spf=Results.of(["!pass"])), REST], {"spf": Spf("temperror")}, "rest"),
    ([greylist(spf=BAD), REST], {}, {"spf"}),
    ([greylist(spf=BAD), REST], {"spf": FAILS}, "slow"),
    ([greylist(spf=BAD), REST], {"spf": PASSES}, "rest"),
    ([greylist(spf=BAD), REST], {"spf": UNKNOWN}, "slow?"),
    ([greylist(spf=Results.of(["!temperror"])), REST], {"spf": Spf("temperror")}, "rest"),
    # What cannot change the outcome is not asked.
    ([greylist(spf=BAD, lists=LISTS)], {"spf": None, "answers": {"bl.test": NOT}}, None),
    ([reject(lists=LISTS), reject(spf=BAD), REST], {"answers": {"bl.test": LISTED}}, "reject"),
    ([reject(spf=BAD), reject(lists=LISTS), REST], {"answers": {"bl.test": LISTED}}, "reject"),
    ([accept(spf=PASS), accept(lists=LISTS), REST], {"answers": {"bl.test": LISTED}}, "accept"),
    ([Rule("try", Action.NONE, spf=PASS), REST], {}, "rest"),
    ([Rule("dull", Action.GREYLIST, spf=PASS), REST], {}, "rest"),
    # A false condition beats an unknown one, an open one too.
    ([accept(spf=PASS, correspondent=True), REST], {"correspondent": False}, "rest"),
    ([accept(spf=PASS, score=Score("<", 2)), REST], {"spf": UNKNOWN}, "rest"),
    ([greylist(spf=BAD, score=Score("<", 2)), REST], {"spf": UNKNOWN, "score": 3.0}, "rest"),
    ([greylist(spf=BAD, score=Score("<", 2))], {"spf": UNKNOWN, "score": 1.0}, "slow?"),
    # The triplet is looked at first, when no list and no refusal is open.
    ([reject(lists=LISTS), accept(spf=PASS), REST], {}, {"bl.test", "spf"}),
    ([reject(lists=LISTS), accept(spf=PASS), REST], {"answers": {"bl.test": NOT}}, {"spf", "standing"}),
    ([accept(spf=PASS), accept(lists=LISTS), REST], {}, {"bl.test", "spf"}),
    ([reject(spf=BAD), accept(correspondent=True), REST], {}, {"spf", "correspondent"}),
    ([accept(spf=PASS), reject(lists=LISTS)], {"answers": {"bl.test": LISTED}}, {"spf"}),
    ([reject(score=Score(">=", 9)), REST], {}, {"score", "standing"}),
    # A list's failure stays what it was.
    (
        [reject(lists=LISTS), accept(lists=GOOD_LISTS), REST],
        {"answers": {"bl.test": Answer(error="x"), "wl.test": Answer(error="x")}},
        "rest",
    ),
    # By hand
    ([accept(by_hand=Hand.ALLOW), reject(by_hand=Hand.BLOCK), REST], {}, {"by_hand"}),
    ([accept(by_hand=Hand.ALLOW), reject(by_hand=Hand.BLOCK), REST], {"by_hand": NO_ENTRY}, "rest"),
    ([accept(by_hand=Hand.ALLOW), reject(by_hand=Hand.BLOCK)], {"by_hand": ByHand(blocked=True)}, "reject"),
    ([accept(by_hand=Hand.ALLOW), REST], {"by_hand": ByHand(allowed=True)}, "accept"),
    ([accept(by_hand=Hand.ALLOW), reject(by_hand=Hand.BLOCK)], {"by_hand": ByHand(True, True)}, "accept"),
    ([accept(by_hand=Hand.ALLOW), REST], {"by_hand": ByHand(allowed_by_spf=True)}, {"spf", "standing"}),
    ([accept(by_hand=Hand.ALLOW), REST], {"by_hand": ByHand(allowed_by_spf=True), "spf": PASSES}, "accept"),
    ([accept(by_hand=Hand.ALLOW), REST], {"by_hand": ByHand(allowed_by_spf=True), "spf": FAILS}, "rest"),
    ([accept(by_hand=Hand.ALLOW), REST], {"by_hand": UNKNOWN}, "rest"),
    # Correspondents
    ([accept(correspondent=True), REST], {}, {"spf", "correspondent", "standing"}),
    ([accept(correspondent=True), REST], {"spf": PASSES}, "rest"),
    ([accept(correspondent=True), REST], {"spf": PROVED}, {"correspondent", "standing"}),
    ([accept(correspondent=True), REST], {"spf": PROVED, "correspondent": True}, "accept"),
    ([accept(correspondent=True), REST], {"spf": PROVED, "correspondent": UNKNOWN}, "rest"),
    ([accept(correspondent=True), REST], {"spf": Spf("temperror"), "correspondent": True}, "rest"),
    ([reject(correspondent=False), REST], {"spf": PROVED, "correspondent": True}, "rest"),
    ([reject(correspondent=False), REST], {"spf": PASSES}, "reject"),
    ([reject(correspondent=False), REST], {"spf": UNKNOWN, "correspondent": True}, "rest"),
    ([reject(correspondent=False), REST], {"correspondent": UNKNOWN}, {"spf"}),
    ([reject(correspondent=False), REST], {"spf": PROVED, "correspondent": UNKNOWN}, "rest"),
    # The score
    ([accept(score=Score("<", 2)), REST], {"score": 1.9}, "accept"),
    ([accept(score=Score("<", 2)), REST], {"score": 2.0}, "rest"),
    ([accept(score=Score("<=", 2)), REST], {"score": 2.0}, "accept"),
    ([reject(score=Score(">", 2)), REST], {"score": 2.0}, "rest"),
    ([reject(score=Score(">=", -1)), REST], {"score": -1.0}, "reject"),
    ([reject(score=Score(">=", 2)), REST], {"score": UNKNOWN}, "rest"),
    ([greylist(score=Score(">=", 2)), REST], {"score": float("nan")}, "slow?"),
]


@pytest.mark.parametrize(("rules", "facts", "wanted"), CASES)
def test_what_a_fact_does(rules, facts, wanted):
    """The rule that decides (with ? where only unknown facts make it match), or what is asked for."""
    assert got(rules, **facts) == wanted


# The law: whatever the facts turn out to be, to ask late is to ask early.

RULES = st.lists(
    st.builds(
        Rule,
        name=st.just("r"),
        action=st.sampled_from(Action),
        delay=st.sampled_from([None, 10]),
        lists=st.sampled_from([(), (), LISTS]),
        spf=st.none() | st.builds(Results.of, st.lists(st.sampled_from(SPF_RESULTS), min_size=1, max_size=3)),
        by_hand=st.none() | st.none() | st.sampled_from(Hand),
        correspondent=st.none() | st.none() | st.booleans(),
        score=st.none() | st.none() | st.builds(Score, st.sampled_from(["<", ">="]), st.sampled_from([0, 4])),
    ),
    max_size=5,
)
SPFS = st.sampled_from([UNKNOWN, PROVED, *map(Spf, SPF_RESULTS)])
HANDS = st.sampled_from([UNKNOWN, *itertools.starmap(ByHand, itertools.product([False, True], repeat=3))])
KNOWN = st.fixed_dictionaries(
    {
        "spf": SPFS,
        "by_hand": HANDS,
        "correspondent": st.sampled_from([True, False, UNKNOWN]),
        "score": st.sampled_from([-1.0, 0.0, 5.0, UNKNOWN]),
    }
)
OPEN = st.sets(st.sampled_from(FACTS))


def spf_value(wanted, spf):
    if spf is UNKNOWN or (spf.result == "temperror" and not wanted.judges_failure):
        return None
    return spf.result in wanted.among


def both(*values):
    """Kleene's and."""
    return False if False in values else None if None in values else True


def hand_value(kind, found, spf):
    if found is UNKNOWN:
        return None
    if kind is Hand.BLOCK:
        return found.blocked
    return found.allowed or (spf_value(PASS, spf) if found.allowed_by_spf else False)


def correspondent_value(wanted, known, spf):
    proved = None if spf is UNKNOWN or spf.result == "temperror" else bool(spf.proved)
    value = both(None if known is UNKNOWN else known, proved)
    return value if wanted or value is None else not value


def naive(rules, listed, facts):
    """The outcome when every fact is known or unknown for good, rule by rule, whatever was asked when."""
    for rule in rules:
        values = [True]
        if rule.lists:
            values.append(listed)
        if rule.spf is not None:
            values.append(spf_value(rule.spf, facts["spf"]))
        if rule.by_hand is not None:
            values.append(hand_value(rule.by_hand, facts["by_hand"], facts["spf"]))
        if rule.correspondent is not None:
            values.append(correspondent_value(rule.correspondent, facts["correspondent"], facts["spf"]))
        if rule.score is not None:
            score = facts["score"]
            values.append(None if score is UNKNOWN else rule.score.holds(score))
        value = both(*values)
        if rule.action is Action.GREYLIST and value is not False:
            return rule.action, rule.delay if value else None
        if rule.action is not Action.NONE and value:
            return rule.action, None
    return Action.ACCEPT, None


def outcome(verdict):
    return verdict.action, verdict.delay if verdict.action is Action.GREYLIST else None


@settings(max_examples=examples(1500), deadline=None)
@given(RULES, st.booleans(), KNOWN, OPEN)
def test_asking_late_equals_asking_early(rules, listed, facts, not_yet):
    """A verdict that does without a fact is the one for all that the fact can be; so is one that stands."""
    mask = (1 << len(rules)) - 1
    known = {name: None if name in not_yet else value for name, value in facts.items()}
    answers = {"bl.test": LISTED if listed else NOT}
    early = judge(Policy(rules), Facts(mask, mask, answers, **known))
    wanted = naive(rules, listed, facts)
    if isinstance(early, Verdict):
        failed = any(facts[name] in (UNKNOWN, Spf("temperror")) for name in not_yet)
        # Who does not ask cannot fail, and so may find the delay that a failure would have shortened.
        assert outcome(early) == wanted or (failed and early.action is wanted[0] is Action.GREYLIST)
        return
    assert not early.zones
    assert {fact for fact in FACTS if getattr(early, fact)} <= not_yet
    if early.standing is not None and not early.score:
        assert wanted in ((Action.ACCEPT, None), outcome(early.standing))


@settings(max_examples=examples(500), deadline=None)
@given(RULES, st.booleans(), KNOWN, st.permutations(FACTS))
def test_asking_only_what_is_awaited_is_enough(rules, listed, facts, order):
    """Whoever learns one awaited fact after the other, in any order, ends with the verdict on all of them."""
    mask = (1 << len(rules)) - 1
    known = dict.fromkeys(FACTS)
    for _ in range(len(FACTS) + 1):
        now = judge(Policy(rules), Facts(mask, mask, {"bl.test": LISTED if listed else NOT}, **known))
        if isinstance(now, Verdict):
            assert now.action is naive(rules, listed, facts)[0]
            return
        awaited = [fact for fact in order if getattr(now, fact)]
        known[awaited[0]] = facts[awaited[0]]
    pytest.fail("awaited facts did not lead to a verdict")


@settings(max_examples=examples(800), deadline=None)
@given(RULES, st.booleans(), KNOWN, KNOWN)
def test_unknown_never_refuses_and_never_lets_in(rules, listed, facts, values):
    """A rule that does not greylist matches only if it does for whatever the unknown facts may be."""
    mask = (1 << len(rules)) - 1
    answers = {"bl.test": LISTED if listed else NOT}
    verdict = judge(Policy(rules), Facts(mask, mask, answers, **facts))
    assert isinstance(verdict, Verdict)
    if verdict.rule is None or verdict.action is Action.GREYLIST:
        return
    possible = {name: values[name] if value is UNKNOWN else value for name, value in facts.items()}
    alone = judge(Policy([verdict.rule]), Facts(1, 1, answers, **possible))
    assert isinstance(alone, Verdict)
    if UNKNOWN not in possible.values() and possible["spf"] != Spf("temperror"):
        assert alone.rule == verdict.rule


# Known at CONNECT: names and pools.

NAMES = Policy(
    [
        Rule("none", Action.TEMPFAIL, rdns=kinds(["none"])),
        Rule("generic", Action.GREYLIST, rdns=kinds(["generic"]), delay=3600),
        Rule("named", Action.ACCEPT, rdns=kinds(["!none", "!generic"])),
    ]
)


@pytest.mark.parametrize(
    ("client", "host", "wanted"),
    [
        ("192.0.2.17", None, "none"),
        ("192.0.2.17", "dsl-192-0-2-17.example.net", "generic"),
        ("192.0.2.17", "mail.example.net", "named"),
        ("64:ff9b::c000:211", "host-192-0-2-17.example.net", "generic"),
        (None, None, None),
    ],
)
def test_names(client, host, wanted):
    """A client's verified name is of one kind; who has no address has no name that could be missing."""
    source = ClientReader().read(client or "unix")
    outcome = judge(NAMES, NAMES.connect(source.packed, host, source.carried))
    assert isinstance(outcome, Verdict)
    assert (outcome.rule.name if outcome.rule else None) == wanted


def pools(*texts):
    return tuple(parse_entry(Kind.POOL, text) for text in texts)


A, B = "_spf.a.example", "b.example"


@pytest.mark.parametrize(
    ("entries", "within", "unknown", "wanted"),
    [
        ([A, B], [A], [], True),
        ([A, B], [B], [A], True),
        ([A], [B], [], False),
        ([A], [], [A], None),
        ([A, f"!{B}"], [A, B], [], False),
        ([A, f"!{B}"], [A], [B], None),
        ([A, f"!{B}"], [B], [A], False),
        ([f"!{B}"], [], [], True),
        ([f"!{B}"], [], [B], None),
        ([], [A], [B], False),
    ],
)
def test_pools(entries, within, unknown, wanted):
    """In a pool by any entry and no exclusion; one that was never resolved is unknown, under ! too."""
    said = Pools(frozenset(within), frozenset(unknown))
    for action in Action:
        policy = Policy([Rule("p", action, pools=pools(*entries), delay=60)])
        verdict = judge(policy, policy.connect(packed("192.0.2.1"), None, None, said))
        assert isinstance(verdict, Verdict)
        matches = verdict.rule is not None or bool(verdict.noted)
        assert matches is (wanted is True or (wanted is None and action is Action.GREYLIST))
        assert verdict.unclear is (wanted is None and action is Action.GREYLIST)
        assert verdict.delay == (60 if wanted and action is Action.GREYLIST else verdict.delay)


@pytest.mark.parametrize(("rule", "wanted"), [(accept(spf=PASS), True), (accept(correspondent=True), False)])
def test_helo_is_wanted_for_spf_of_the_null_sender(rule, wanted):
    """A rule on SPF has a result for <>, too; a correspondent is never <>."""
    assert Policy([rule]).needs_helo is wanted


def test_a_client_in_a_pool_is_trusted_at_connect_unless_a_fact_could_refuse_it():
    """Nothing is asked for it then; an entry by hand that may block it is looked at first."""
    rule = Rule("pools", Action.ACCEPT, pools=pools(A))
    within = Pools(frozenset([A]))
    policy = Policy([rule, REST])
    assert policy.pools == (A,)
    assert policy.trusted(policy.connect(packed("192.0.2.1"), None, None, within)) == Verdict(rule)
    policy = Policy([reject(by_hand=Hand.BLOCK), rule, REST])
    client = policy.connect(packed("192.0.2.1"), None, None, within)
    assert policy.trusted(client) is None
    said = Facts(client.maybe, client.maybe, by_hand=ByHand(blocked=True))
    blocked = judge(policy, said)
    assert isinstance(blocked, Verdict)
    assert blocked.action is Action.REJECT
    assert isinstance(judge(policy, client), Awaited)


# In words.

WAYS = [
    (accept(rdns=kinds(["generic"])), {}, NO_POOL, "rdns: no (named)"),
    (accept(pools=pools(A)), {}, NO_POOL, "pools: no"),
    (accept(pools=pools(A)), {}, Pools(frozenset([A])), f"pools: yes ({A})"),
    (accept(pools=pools(A)), {}, Pools(unknown=frozenset([A])), "pools: unknown (not resolved yet)"),
    (accept(spf=PASS), {}, NO_POOL, "spf: unknown (not asked)"),
    (accept(spf=PASS), {"spf": UNKNOWN}, NO_POOL, "spf: unknown (not known)"),
    (accept(spf=PASS), {"spf": FAILS}, NO_POOL, "spf: no (fail)"),
    (accept(spf=PASS), {"spf": PROVED}, NO_POOL, "spf: yes (pass, which proves a.example)"),
    (accept(by_hand=Hand.ALLOW), {"by_hand": NO_ENTRY}, NO_POOL, "by_hand: no"),
    (
        accept(by_hand=Hand.ALLOW),
        {"by_hand": ByHand(allowed_by_spf=True), "spf": FAILS},
        NO_POOL,
        "by_hand: no (the sender, if SPF passes: fail)",
    ),
    (accept(correspondent=True), {}, NO_POOL, "correspondent: unknown (not asked)"),
    (accept(correspondent=True), {"correspondent": False}, NO_POOL, "correspondent: no (never written to)"),
    (
        accept(correspondent=True),
        {"correspondent": True, "spf": PASSES},
        NO_POOL,
        "correspondent: no (written to; SPF does not prove the client)",
    ),
    (
        accept(correspondent=True),
        {"correspondent": True, "spf": PROVED},
        NO_POOL,
        "correspondent: yes (written to)",
    ),
    (accept(score=Score("<", 2)), {}, NO_POOL, "score: unknown (not scanned)"),
    (accept(score=Score("<", 2)), {"score": 4.5}, NO_POOL, "score: no (4.5)"),
]


@pytest.mark.parametrize(("rule", "facts", "within", "words"), WAYS)
def test_words_for_conditions(rule, facts, within, words):
    """What `explain` says of a condition, with what is known of it."""
    asked = Question("192.0.2.17", "mail.example.net")
    way = steps(
        Policy([rule]), Verdict(None), asked, {}, {}, looked_up=True, facts=Facts(1, 1, **facts), pools=within
    )
    assert [step.why for step in way] == [words]


RETRACED = [
    accept(spf=PASS),
    reject(spf=Results.of(["!pass"])),
    accept(by_hand=Hand.ALLOW),
    reject(by_hand=Hand.BLOCK),
    accept(correspondent=True),
    accept(pools=pools(A, f"!{B}")),
    reject(score=Score(">=", 9)),
    accept(score=Score("<", 2)),
    REST,
]


@pytest.mark.parametrize("rule", RETRACED)
def test_a_record_leads_to_its_rule_again(rule):
    """What was asked for then is not in it all; it is taken to be what led there."""
    others = [accept(by_hand=Hand.ALLOW), reject(by_hand=Hand.BLOCK), accept(correspondent=True)]
    rules = [replace(one, name=f"{n}") for n, one in enumerate(others) if one != rule] + [rule]
    rules += [replace(REST, name="last")] if rule is not REST else []
    way = retrace(Policy(rules), Question("192.0.2.17", "mail.example.net"), {}, {}, rule.name)
    assert (way.rule, way.agrees) == (rule.name, True)
