"""Messages through configurations: small cases by hand, and laws of the whole."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridgrey.config import load
from hybridgrey.greylist.triplets import Greylist
from hybridgrey.replay import running, summary
from hybridgrey.replay.reading import Reader
from hybridgrey.replay.running import End
from hybridgrey.replay.trial import Trial
from parts.laws import examples

BEGIN = 1_767_225_600
DEFAULT = load.default()
ZEN = "zen.spamhaus.org"


def config(tmp_path, text):
    path = tmp_path / "hybridgrey.toml"
    path.write_text(text)
    return load.load(path)


def line(*moments, client="192.0.2.1", label="", kind="", sender="a@x.example", **facts):
    attempts = [{"at": BEGIN + at, "client": client, **facts} for at in moments]
    record = {"sender": sender, "recipient": "r@y.example", "attempts": attempts}
    return json.dumps({**record, "label": label, "kind": kind}).encode()


def verdict(at, outcome, client="192.0.2.1", enforced=True, **fields):
    ts = f"2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}.000Z"
    event = {"ts": ts, "event": "verdict", "client": client, "host": None, "helo": "x", "lists": {}}
    event |= {"sender": "a@x.example", "recipient": "r@y.example", "outcome": outcome, "enforced": enforced}
    return json.dumps(event | fields).encode()


def replayed(lines, *configs):
    """Reader, messages, and the results of each configuration."""
    reader = Reader()
    reader.read("file", lines)
    messages = reader.messages()
    return reader, messages, running.run(messages, [Trial(c, frozenset(reader.named_lists)) for c in configs])


def ends(lines, configuration=DEFAULT):
    (results,) = replayed(lines, configuration)[2]
    return [(one.end, one.rule, one.delay) for one in results]


NO_LIST = {"lists": {zone: [] for zone in (ZEN, "bl.mailspike.net", "rep.mailspike.net", "list.dnswl.org")}}


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([line(0)], (End.GIVEN_UP, "the rest", None)),
        ([line(0, 299)], (End.GIVEN_UP, "the rest", None)),
        ([line(0, 300)], (End.DELAYED, "the rest", 300)),
        ([line(900, 0, 60)], (End.DELAYED, "the rest", 900)),
        ([line(0, 172_800)], (End.GIVEN_UP, "the rest", None)),
        ([line(0, 400, **NO_LIST)], (End.DELAYED, "the rest", 400)),
        ([line(0, authenticated=True)], (End.AT_ONCE, "authenticated", 0)),
        ([line(0, client="127.0.0.1")], (End.AT_ONCE, "local", 0)),
        ([line(0, client="unix")], (End.AT_ONCE, "the rest", 0)),
        ([line(0, lists={ZEN: ["127.0.0.4"]})], (End.REJECTED, "blocklists", None)),
        ([line(0, lists={"Zen.Spamhaus.Org.": ["127.0.0.4"]})], (End.REJECTED, "blocklists", None)),
        ([line(0, 300, lists={ZEN: ["127.255.255.254"]})], (End.DELAYED, "the rest", 300)),
        ([line(0, 300, lists={ZEN: "timeout"})], (End.DELAYED, "the rest", 300)),
        ([line(0, 300, lists={"list.dnswl.org": ["127.0.0.255"]})], (End.DELAYED, "the rest", 300)),
        ([line(0, lists={"list.dnswl.org": ["127.0.5.3"]})], (End.AT_ONCE, "allowlists", 0)),
        # The log
        ([verdict(0, "greylisted"), verdict(310, "accepted")], (End.DELAYED, "the rest", 310)),
        ([verdict(0, "accepted")], (End.UNTIL_UNKNOWN, "the rest", None)),
        ([verdict(0, "greylisted", enforced=False)], (End.UNTIL_UNKNOWN, "the rest", None)),
        ([verdict(0, "rejected")], (End.UNTIL_UNKNOWN, "the rest", None)),
        ([verdict(0, "greylisted")], (End.GIVEN_UP, "the rest", None)),
        ([verdict(0, "accepted", reason="authenticated")], (End.AT_ONCE, "authenticated", 0)),
        ([verdict(0, "rejected", lists={ZEN: ["127.0.0.2"]})], (End.REJECTED, "blocklists", None)),
        ([verdict(0, "greylisted"), verdict(400, "accepted", "192.0.2.9")], (End.DELAYED, "the rest", 400)),
    ],
)
def test_what_becomes_of_a_message(lines, wanted):
    """By the default rules."""
    assert ends(lines) == [wanted]


KIND = """
[[rule]]
name = "correspondents"
correspondent = true
action = "accept"
[[rule]]
name = "pools"
pools = ["_spf.big.example"]
action = "accept"
[[rule]]
name = "fails"
spf = ["fail"]
action = "reject"
[[rule]]
name = "nameless"
rdns = ["none", "generic"]
action = "greylist"
delay = "15m"
[[rule]]
name = "the rest"
action = "greylist"
"""
OUT = (End.GIVEN_UP, "the rest", None)


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        ({"pools": ["_spf.big.example"]}, (End.AT_ONCE, "pools", 0)),
        ({"pools": ["_SPF.Big.example."]}, (End.AT_ONCE, "pools", 0)),
        ({"pools": ["_spf.other.example"], "host": "mx.example.org"}, OUT),
        ({"host": "mx.example.org"}, OUT),
        ({"correspondent": True, "spf": "pass"}, (End.AT_ONCE, "correspondents", 0)),
        ({"correspondent": True, "spf": "pass", "proved": False, "host": "mx.example.org"}, OUT),
        ({"correspondent": True, "host": "mx.example.org"}, OUT),
        ({"correspondent": True, "spf": "temperror", "host": "mx.example.org"}, OUT),
        ({"correspondent": False, "spf": "pass", "host": "mx.example.org"}, OUT),
        ({"expected": True}, (End.AT_ONCE, "nameless", 0)),
        ({"spf": "fail"}, (End.REJECTED, "fails", None)),
        ({"host": None}, (End.GIVEN_UP, "nameless", None)),
    ],
)
def test_facts_beside_the_lists(tmp_path, facts, wanted):
    """What is absent is unknown: no way in and no refusal."""
    assert ends([line(0, **facts)], config(tmp_path, KIND)) == [wanted]


@pytest.mark.parametrize(("host", "passes"), [(None, 900), ("mx.example.org", 300), ("absent", 300)])
def test_a_delay_of_its_own_is_for_whom_the_rule_is(tmp_path, host, passes):
    """A client whose name is not in the record waits as all do."""
    facts = {} if host == "absent" else {"host": host}
    moments = range(0, 1200, 100)
    ((_, _, delay),) = ends([line(*moments, **facts)], config(tmp_path, KIND))
    assert delay == passes


@pytest.mark.parametrize(
    ("switch", "proved", "wanted"),
    [("true", True, End.DELAYED), ("true", False, End.GIVEN_UP), ("false", True, End.GIVEN_UP)],
)
def test_a_sender_pool(tmp_path, switch, proved, wanted):
    """A retry from elsewhere passes by the domain that SPF proves."""
    record = json.loads(line(0, 400, spf="pass", proved=proved))
    record["attempts"][1]["client"] = "198.51.100.1"
    configuration = config(tmp_path, f"[greylist]\nsender_pools = {switch}\n")
    assert [end for end, _, _ in ends([json.dumps(record).encode()], configuration)] == [wanted]


def test_the_log_has_facts():
    """What was learnt of the sender then."""
    log = [verdict(0, "accepted", spf="pass", proved=True, correspondent=True)]
    log += [verdict(5, "accepted", sender="b@x.example", reason="expected")]
    log += [verdict(9, "accepted", sender="c@x.example", spf="pass", proved=False, correspondent=True)]
    found = [(end, rule) for end, rule, _ in ends(log)]
    assert found == [
        (End.AT_ONCE, "correspondents"),
        (End.AT_ONCE, "the rest"),
        (End.UNTIL_UNKNOWN, "the rest"),
    ]


def test_the_log_has_scores(tmp_path):
    """A low one lets in what a high one delays; null, of a scan that failed, is unknown."""
    content = '[content]\nscanner = "spamd:inet:783@127.0.0.1"\n'
    rule = '[[rule]]\nname = "s"\nscore = ">=5"\naction = "greylist"\n'
    configuration = config(tmp_path, content + rule)
    for score, wanted in ((1.5, End.AT_ONCE), (7, End.UNTIL_UNKNOWN), (None, End.UNTIL_UNKNOWN)):
        log = [verdict(0, "accepted", score=score, scan_ms=2)]
        assert [end for end, _, _ in ends(log, configuration)] == [wanted]


def test_a_log_is_put_together_by_triplet():
    """A message ends when it is let in; the next of the same sender is another, and known."""
    log = [verdict(0, "greylisted"), verdict(400, "accepted"), verdict(900, "accepted")]
    log.append(verdict(950, "accepted", "198.51.100.1"))
    assert sorted(end for end, _, _ in ends(log)) == sorted([End.DELAYED, End.AT_ONCE, End.UNTIL_UNKNOWN])


def test_a_network_proves_itself(tmp_path):
    """Two messages that pass let in a third of their network at once."""
    configuration = config(tmp_path, "[greylist]\nauto_allow_after = 2\nauto_allow_interval = '0s'\n")
    lines = [line(at, at + 300, sender=f"{name}@x.example") for at, name in ((0, "a"), (1, "b"), (400, "c"))]
    assert [end for end, _, _ in ends(lines, configuration)] == [End.DELAYED, End.DELAYED, End.AT_ONCE]


def test_numbers_by_hand(tmp_path):
    """Ten messages: percentiles by nearest rank over all accepted ones, those not delayed as 0."""
    lines = [line(0, authenticated=True, label="ham", kind="own", sender=f"{n}@a.example") for n in range(6)]
    lines += [line(0, at, label="ham", kind="code", sender=f"{at}@b.example") for at in (300, 601)]
    lines += [line(0, label="spam", client="198.51.100.1")]
    lines += [line(0, label="spam", client="198.51.100.2", lists={ZEN: ["127.0.0.2"]})]
    _, messages, (results,) = replayed(lines, DEFAULT)
    groups = summary.counted(messages, results)
    counts = groups[summary.ALL]
    assert (counts.messages, counts.accepted, counts.put_off) == (10, 8, 3)
    assert counts.percentiles(50, 75, 87.5, 95) == [0, 0, 300, 601]
    assert counts.long == 1 / 8
    assert groups[summary.Group("ham", "code")].percentiles(50, 95) == [300, 601]
    spam = groups[summary.Group("spam")]
    assert (spam.accepted, spam.percentiles(50), spam.long) == (0, [None], None)
    assert spam.ends == {End.GIVEN_UP: 1, End.REJECTED: 1}


def test_differences_are_named(tmp_path):
    """A configuration without lists lets a listed client in after the delay."""
    plain = config(tmp_path, '[[rule]]\nname = "all"\naction = "greylist"\n')
    lines = [line(0, 300, lists={ZEN: ["127.0.0.2"]}), line(0, 300, client="198.51.100.1")]
    _, messages, results = replayed(lines, DEFAULT, plain)
    found = summary.compared(messages, *results)
    assert found.messages == 1
    ((change, number),) = found.heaviest()
    assert (change, number) == ((End.REJECTED, "blocklists", End.DELAYED, "all"), 1)
    assert [(e.delay, e.other_delay) for e in found.examples[change]] == [(None, 300)]


@pytest.mark.parametrize(
    "bad",
    [
        b"no JSON\n",
        b'{"cut":\n',
        b"[1]\n",
        b"{}\n",
        b'{"attempts": []}\n',
        b'{"event": "verdict"}\n',
        verdict(0, "accepted", ts="yesterday"),
        verdict(0, "accepted", sender=None),
        line(0, client=None),
        line(-BEGIN),
        line(1e300),
        line(0, lists=["x"]),
        line(0, lists={ZEN: ["x"]}),
        line(0, lists={ZEN: [1]}),
        line(0, authenticated=1),
        line(0, proved="yes"),
        line(0, proved=True, spf="fail"),
        line(0, spf="passed"),
        line(0, spf=["pass"]),
        line(0, correspondent=0),
        line(0, expected=None),
        line(0, score="5"),
        line(0, pools=[5]),
        line(0, pools="x"),
        line(0, helo=5),
        line(0, helo="x" * 5000),
        b"\xff{\xff}",
        b"{" + b'"a":[' * 5000,
    ],
)
def test_damage_is_told(bad):
    """A damaged line is counted with its place, and the others stand."""
    reader, messages, _ = replayed([line(0), bad, line(5)], DEFAULT)
    assert (len(messages), reader.damaged) == (2, 1)
    assert (reader.damages[0].file, reader.damages[0].line) == ("file", 2)


def test_keys_that_mean_nothing_are_named():
    """What is known is read, and what is not is told."""
    facts = {
        "spf": "pass",
        "proved": True,
        "pools": [],
        "correspondent": False,
        "expected": False,
        "score": 1,
    }
    reader, messages, _ = replayed([line(0, **facts, lsits={}), b'{"event": "started"}'], DEFAULT)
    assert (len(messages), reader.damaged, reader.other_events) == (1, 0, 1)
    assert reader.unknown_keys == {"lsits"}


# Laws

LINES = st.lists(
    st.one_of(
        st.builds(
            lambda moments, client, sender, facts: line(*moments, client=client, sender=sender, **facts),
            st.lists(st.sampled_from([0, 1, 300, 301, 900, 5000]), min_size=1, max_size=4),
            st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "127.0.0.1"]),
            st.sampled_from(["a@x.example", "b@x.example", "<>"]),
            st.sampled_from([{}, NO_LIST, {"lists": {ZEN: ["127.0.0.3"]}}, {"authenticated": True}]),
        ),
        st.builds(verdict, st.integers(0, 5000), st.sampled_from(["accepted", "greylisted", "rejected"])),
    ),
    min_size=1,
    max_size=12,
)


@given(LINES)
@settings(max_examples=examples(60), deadline=None)
def test_a_configuration_does_not_differ_from_itself(lines):
    """And each message has one result."""
    _, messages, results = replayed(lines, DEFAULT, DEFAULT)
    assert [len(one) for one in results] == [len(messages)] * 2
    assert summary.compared(messages, *results).messages == 0


@given(LINES, st.randoms(use_true_random=False))
@settings(max_examples=examples(60), deadline=None)
def test_the_order_of_lines_is_no_matter(lines, chance: random.Random):
    """The same messages have the same results."""
    shuffled = chance.sample(lines, len(lines))
    outcomes = []
    for some in (lines, shuffled):
        _, messages, (results,) = replayed(some, DEFAULT)
        outcomes.append(sorted(map(repr, zip(messages, results, strict=True))))
    assert outcomes[0] == outcomes[1]


CASES = st.tuples(
    st.sampled_from(
        ["192.0.2.1", "192.0.2.2", "192.0.3.1", "::ffff:192.0.2.1", "2001:db8::1", "64:ff9b::c000:201"]
    ),
    st.sampled_from(
        ["a@x.example", "A@x.example", "bounce-1234@x.example", "bounce-9@x.example", "<>", '"a b"@x']
    ),
    st.sampled_from(["r@y.example", "R@y.example", "r+x@y.example"]),
)


@given(CASES, CASES)
@settings(max_examples=examples(200), deadline=None)
def test_names_are_alike_where_keys_are(one, other):
    """The names of an attempt's keys here tell apart what the store's keys tell apart."""
    grey = Greylist(None, DEFAULT.greylist)
    of_network = Trial(DEFAULT).names.of_network
    keys = [grey.attempt(*case, 1).keys for case in (one, other)]
    names = [of_network(*case) for case in (one, other)]
    assert [a == b for a, b in zip(*keys, strict=True)] == [a == b for a, b in zip(*names, strict=True)]
