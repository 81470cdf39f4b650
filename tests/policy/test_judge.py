"""Judging: order, conditions, weights, and that an early verdict is the late one."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.address import packed
from hybridgrey.envelope import read
from hybridgrey.policy.judge import Action, Answer, Awaited, Facts, Policy, Rule, Verdict, judge
from hybridgrey.policy.match import Kind, parse_entry
from hybridgrey.policy.pattern import ListEntry
from parts.laws import examples

LISTED = Answer((bytes([127, 0, 0, 2]),))
NOT = Answer()
FAILED = Answer((bytes([127, 0, 0, 2]),), error="REFUSED")


def entries(kind, *texts):
    return tuple(parse_entry(kind, t) for t in texts)


def lists(*texts):
    return tuple(map(ListEntry.parse, texts))


BLOCK = Rule("block", Action.REJECT, lists=lists("b1.test", "b2.test"))
ALLOW = Rule("allow", Action.ACCEPT, lists=lists("w1.test=127.0.[0..255].[2..3]", "w2.test"))
REST = Rule("rest", Action.GREYLIST)
HIERARCHY = Policy([BLOCK, ALLOW, REST])
ALL = {"b1.test": NOT, "b2.test": NOT, "w1.test": NOT, "w2.test": NOT}


def verdict(policy, answers, mask=None):
    mask = (1 << len(policy.rules)) - 1 if mask is None else mask
    return judge(policy, Facts(mask, mask, answers))


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({}, {"b1.test", "b2.test", "w1.test", "w2.test"}),
        ({"b1.test": LISTED}, "block"),
        ({"b2.test": LISTED}, "block"),
        ({"w1.test": LISTED}, {"b1.test", "b2.test"}),
        ({"w2.test": LISTED, "b1.test": NOT}, {"b2.test"}),
        ({"w2.test": LISTED, "b1.test": NOT, "b2.test": NOT}, "allow"),
        ({"w2.test": LISTED, "b1.test": LISTED}, "block"),
        ({"w1.test": FAILED, "b1.test": FAILED, "b2.test": NOT, "w2.test": NOT}, "rest"),
        ({"b1.test": NOT, "b2.test": NOT}, {"w1.test", "w2.test"}),
        (ALL, "rest"),
        (ALL | {"w1.test": Answer((bytes([127, 0, 5, 1]),))}, "rest"),
        (ALL | {"w1.test": Answer((bytes([127, 0, 5, 1]), bytes([127, 0, 5, 3])))}, "allow"),
    ],
)
def test_hierarchy(answers, wanted):
    """The first rule that matches decides, and only what can change that is awaited."""
    got = verdict(HIERARCHY, answers)
    if isinstance(wanted, set):
        assert got == Awaited(frozenset(wanted))
    else:
        assert isinstance(got, Verdict)
        assert got.rule.name == wanted


def test_order_of_rules_decides_when_both_claim_a_client():
    """A client on both kinds of list is accepted where the allowlists come first."""
    both = {"b1.test": LISTED, "w2.test": LISTED}
    assert verdict(HIERARCHY, both).rule is BLOCK
    assert verdict(Policy([ALLOW, BLOCK, REST]), both).rule is ALLOW


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({}, None),
        ({"a.test": LISTED}, None),
        ({"a.test": LISTED, "b.test": LISTED}, None),
        ({"a.test": LISTED, "b.test": LISTED, "g.test": NOT}, True),
        ({"a.test": LISTED, "b.test": LISTED, "g.test": LISTED}, False),
        ({"a.test": NOT}, False),
        ({"b.test": NOT}, False),
        ({"a.test": FAILED}, False),
        ({"a.test": LISTED, "b.test": LISTED, "g.test": FAILED}, True),
    ],
)
def test_weights(answers, wanted):
    """Weights are summed, negative ones too, and waited for while the sum can still cross the threshold."""
    rule = Rule("sum", Action.REJECT, lists=lists("a.test*2", "b.test*2", "g.test*-1"), threshold=4)
    got = verdict(Policy([rule, REST]), answers)
    if wanted is None:
        assert isinstance(got, Awaited)
    else:
        assert got.rule is (rule if wanted else REST)


def test_action_none_is_noted_and_goes_on():
    """A rule with action none is reported and never waited for."""
    policy = Policy([Rule("try", Action.NONE, lists=lists("new.test")), REST])
    assert verdict(policy, {}) == Verdict(REST)
    assert verdict(policy, {"new.test": LISTED}).noted == (policy.rules[0],)


def test_a_greylist_rule_with_its_own_delay_is_worth_waiting_for():
    """Two greylist rules with different delays are different outcomes; two rejects are one."""
    slow = Rule("dynamic", Action.GREYLIST, lists=lists("dyn.test"), delay=3600)
    assert verdict(Policy([slow, REST]), {}) == Awaited(frozenset({"dyn.test"}))
    other = Rule("more", Action.REJECT, lists=lists("b3.test"))
    assert verdict(Policy([BLOCK, other, REST]), {"b3.test": LISTED}).rule is other


CONNECT = Policy(
    [
        Rule("authenticated", Action.ACCEPT, authenticated=True),
        Rule(
            "local",
            Action.ACCEPT,
            clients=entries(Kind.CLIENT, "127.0.0.0/8", "::1", ".example.org", "!127.0.0.9"),
        ),
        Rule("required", Action.ACCEPT, recipients=entries(Kind.RECIPIENT, "postmaster")),
        BLOCK,
        REST,
    ]
)


@pytest.mark.parametrize(
    ("client", "host", "rule"),
    [
        ("127.1.2.3", None, "local"),
        ("::1", None, "local"),
        ("::ffff:127.0.0.1", None, "local"),
        ("192.0.2.1", "mail.example.org", "local"),
        ("192.0.2.1", "example.org", None),
        ("127.0.0.9", None, None),
        ("192.0.2.1", None, None),
        (None, None, None),
    ],
)
def test_trusted_at_connect(client, host, rule):
    """A client that is accepted whatever it goes on to say is known at CONNECT."""
    got = CONNECT.trusted(CONNECT.connect(packed(client) if client else None, host))
    assert (got and got.rule.name) == rule


def test_a_rule_that_wants_to_see_recipients_keeps_a_client_from_being_trusted_early():
    """A rejecting or noting rule on recipients before the accepting one forbids an accept at CONNECT."""
    local = CONNECT.rules[1]
    for action in (Action.REJECT, Action.NONE):
        policy = Policy([Rule("trap", action, recipients=entries(Kind.RECIPIENT, "trap@a.test")), local])
        assert policy.trusted(policy.connect(packed("127.0.0.1"), None)) is None


def test_questions_stop_at_a_sure_rule():
    """Lists below a rule that surely decides are not asked."""
    assert CONNECT.questions(CONNECT.connect(packed("127.0.0.1"), None)) == ()
    assert CONNECT.questions(CONNECT.connect(packed("192.0.2.1"), None)) == ("b1.test", "b2.test")


def masks(policy, client, helo, sender, recipient, authenticated=False, host=None):
    facts = policy.connect(packed(client), host)
    transaction = policy.transaction(facts, helo, read(sender), authenticated=authenticated)
    return policy.recipient(transaction, read(recipient))


def test_conditions_of_one_rule_must_all_hold():
    """A rule with several conditions needs each of them; exclusions win over inclusions."""
    rule = Rule(
        "all",
        Action.ACCEPT,
        clients=entries(Kind.CLIENT, "192.0.2.0/24"),
        helo=entries(Kind.HELO, ".example.org", "[192.0.2.1]"),
        senders=entries(Kind.SENDER, "example.org", "!spam@example.org"),
        recipients=entries(Kind.RECIPIENT, "!boss"),
        authenticated=False,
    )
    policy = Policy([rule])
    good = ("192.0.2.1", "mx.Example.ORG", "<a@example.org>", "<b@b.test>")
    assert masks(policy, *good) == 1
    assert masks(policy, "192.0.2.1", "[192.0.2.1]", *good[2:]) == 1
    for i, bad in [
        (0, "192.0.3.1"),
        (1, "example.org"),
        (1, None),
        (2, "<spam@EXAMPLE.org>"),
        (2, "<>"),
        (3, "<Boss@x>"),
    ]:
        assert masks(policy, *good[:i], bad, *good[i + 1 :]) == 0
    assert masks(policy, *good, authenticated=True) == 0


ZONES = [f"z{i}.test" for i in range(5)]
ANSWERS = st.sampled_from([NOT, LISTED, FAILED, Answer((bytes([127, 0, 0, 3]),))])
RULES = st.lists(
    st.builds(
        Rule,
        name=st.just("r"),
        action=st.sampled_from(Action),
        lists=st.lists(
            st.builds(
                lambda z, p, w: ListEntry.parse(f"{z}{p}*{w}"),
                st.sampled_from(ZONES),
                st.sampled_from(["", "=127.0.0.2", "=127.0.0.[3..4]"]),
                st.sampled_from([-2, -1, 1, 2]),
            ),
            max_size=4,
        ).map(tuple),
        threshold=st.integers(1, 3),
        delay=st.sampled_from([None, 10]),
    ),
    max_size=6,
)


@settings(max_examples=examples(500))
@given(
    RULES,
    st.fixed_dictionaries(dict.fromkeys(ZONES, ANSWERS)),
    st.permutations(ZONES),
    st.integers(0, 63),
    st.integers(0, 63),
)
def test_deciding_early_equals_deciding_with_all_answers(rules, answers, order, sure, unsure):
    """In whatever order answers come, the first verdict has the outcome of the last one."""
    policy = Policy(rules)
    everything = (1 << len(rules)) - 1
    sure &= everything
    final = judge(policy, Facts(sure, sure, answers))
    assert isinstance(final, Verdict)
    known = {}
    for zone in itertools.chain([None], order):
        if zone:
            known[zone] = answers[zone]
        early = judge(policy, Facts(sure, sure, dict(known)))
        if isinstance(early, Verdict):
            assert early.action == final.action
            if final.action is Action.GREYLIST:
                assert early.rule.delay == final.rule.delay
        else:
            assert early.zones
            assert not early.zones & known.keys()
            assert not early.dialogue
    # Facts of the dialogue that are still open change nothing about an early verdict either.
    before = judge(policy, Facts(sure & ~unsure, sure | (unsure & everything), answers))
    if isinstance(before, Verdict):
        assert before.action == final.action


@given(RULES, st.fixed_dictionaries(dict.fromkeys(ZONES, ANSWERS)))
def test_waiting_only_for_what_is_awaited_is_enough(rules, answers):
    """Whoever collects just the awaited lists ends with a verdict."""
    policy = Policy(rules)
    mask = (1 << len(rules)) - 1
    known = {}
    for _ in range(len(ZONES) + 1):
        got = judge(policy, Facts(mask, mask, known))
        if isinstance(got, Verdict):
            return
        known |= {z: answers[z] for z in got.zones}
    pytest.fail("awaited lists did not lead to a verdict")
