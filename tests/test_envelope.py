"""The one reading of envelope paths: tables of what is certain and what is not, and laws for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey import envelope
from hybridgrey.envelope import NULL, delivered, read, strict
from hybridgrey.greylist.normalise import recipient, sender
from hybridgrey.greylist.triplets import Greylist
from hybridgrey.policy.judge import Action, Facts, Policy, Rule, Verdict, judge
from hybridgrey.policy.match import Kind, parse_entry
from parts.greyterms import GreyTerms

# What Postfix 3.7 sends: the raw path, its macro, and local part and domain; None is uncertain.
POSTFIX = [
    ("<User@X.test>", "user@x.test", ("user", "x.test")),
    ("<postmaster@x:;user>", "user@mx.test", ("user", "mx.test")),
    ("<postmaster@x:;user%other.test>", "user@other.test", ("user", "other.test")),
    ("<ceo(x)@optout.test>", "ceo@optout.test", ("ceo", "optout.test")),
    ("<ceo @optout.test>", "ceo@optout.test", ("ceo", "optout.test")),
    ("<bad.test!spam>", "spam@bad.test", ("spam", "bad.test")),
    ("<x:;>", "", ("", "")),
    ("< >", "", ("", "")),
    ('<"john doe"@x.test>', '"john doe"@x.test', ("john doe", "x.test")),
    (r"<a\@b@x.test>", '"a@b"@x.test', ("a@b", "x.test")),
    (r'<"a\"b"@x.test>', r'"a\"b"@x.test', ('a"b', "x.test")),
    ("<a..b@x.test>", '"a..b"@x.test', ("a..b", "x.test")),
    ("<@x.test>", '""@x.test', ("", "x.test")),
    ("<u@[IPv6:::1]>", "u@[ipv6:::1]", ("u", "[ipv6:::1]")),
    ("a@x.test", "a@x.test", ("a", "x.test")),
    ("x<a@x.test>", "a@x.test", ("a", "x.test")),
    # The macro is casefolded: what is not ASCII is taken from the path, if that is plain and agrees.
    ("<jürgen@x.test>", "jürgen@x.test", ("jürgen", "x.test")),
    # Its tables are, too, so it may deliver to the folded local part, or hand on the other.
    ("<straße@x.test>", "strasse@x.test", None),
    ("<\u017fales@x.test>", "sales@x.test", None),
    ("<SALE\u017f@x.test>", "sales@x.test", None),
    ("<\u212aelvin@x.test>", "kelvin@x.test", ("kelvin", "x.test")),
    ('<"\u017fales"@x.test>', "sales@x.test", None),
    ("<u@straße.de>", "u@strasse.de", ("u", "xn--strae-oqa.de")),
    ("<u@MÜNCHEN.de>", "u@münchen.de", ("u", "xn--mnchen-3ya.de")),
    ("<ceo(ü)@optout.test>", "ceo@optout.test", None),
    ("<postmaster@x.test(ü)>", "user@x.test", None),
    ("<jürgen@x.test>", "georg@x.test", None),
    ("<jürgen>", "jürgen@mx.test", None),
    # No macro: as RFC 5321 has it.
    ("<user@x.test>", None, ("user", "x.test")),
    ("<postmaster@x:;user>", None, None),
    # A macro that is no address.
    ("<user@x.test>", "user@x test", None),
    ("<user@x.test>", "user@", None),
]


@pytest.mark.parametrize(("raw", "said", "wanted"), POSTFIX)
def test_postfix(raw, said, wanted):
    """With Postfix the macro is the address."""
    box = delivered(raw.encode(), said, final=True)
    assert ((box.local, box.domain) if box.certain else None) == wanted


# What Sendmail 8.17 sends: the raw path, its macro, the mailer.
SENDMAIL = [
    ("<user@x.test>", "user@x.test", "esmtp", ("user", "x.test")),
    ("<User@X.test.>", "User@X.test", "esmtp", ("user", "x.test")),
    ("<user@mx.test>", "user", "local", ("user", "mx.test")),
    ("<info@virtual.test>", "joe", "local", ("info", "virtual.test")),
    ("<info@virtual.test>", "joe@elsewhere.test", "esmtp", ("info", "virtual.test")),
    ("<@a.test,@b.test:user@x.test>", "user@x.test", "esmtp", ("user", "x.test")),
    ('<"john doe"@x.test>', '"john doe"@x.test', "esmtp", ("john doe", "x.test")),
    ('<"john.doe"@x.test>', "joe", "local", ("john.doe", "x.test")),
    ("<a..b@x.test>", "a..b@x.test", "esmtp", ("a..b", "x.test")),
    ("<ceo%other.test@x.test>", "ceo%other.test@x.test", "esmtp", ("ceo%other.test", "x.test")),
    ("<ceo%other.test@mx.test>", "ceo@other.test", "esmtp", None),
    ("<other.test!ceo@mx.test>", "ceo@other.test", "esmtp", None),
    ("<other.test!ceo>", "ceo@other.test", "esmtp", None),
    ("<ceo(x)@optout.test>", "ceo@optout.test", "esmtp", None),
    ("<ceo @optout.test>", "ceo@optout.test", "esmtp", None),
    ("<u@[x y]>", "u@[x.y]", "esmtp", None),
    ("<a@b c>", "a@b.c", "esmtp", None),
    ("<user@x.test>", "user@x.test", "error", None),
    ("<>", "", "", ("", "")),
    ("< >", "", "", None),
    ("<user@x.test>", None, "", ("user", "x.test")),
    ("<ceo%other.test@x.test>", None, "", None),
    ('<"ceo@other.test"@x.test>', None, "", None),
    ("<jürgen@x.test>", "jürgen@x.test", "esmtp", ("jürgen", "x.test")),
    ("<\u017fales@x.test>", "\u017fales@x.test", "esmtp", None),
]


@pytest.mark.parametrize(("raw", "said", "mailer", "wanted"), SENDMAIL)
def test_sendmail(raw, said, mailer, wanted):
    """With Sendmail the path is the address, and the macro confirms what MTAs differ over."""
    box = delivered(raw.encode(), said, mailer, final=False)
    assert ((box.local, box.domain) if box.certain else None) == wanted


def test_bytes_that_are_no_text_are_uncertain():
    """8-bit that is no UTF-8 has no macro that can be decoded, and no reading."""
    boxes = {
        delivered(b"<j%cr@x.test>" % c, None, final=final) for c in (0xFC, 0xFD) for final in (True, False)
    }
    assert not any(box.certain for box in boxes)
    assert len({box.key for box in boxes}) == 2


IDENTITIES = [
    # one, other, whether they are one
    ("u@straße.de", "u@strasse.de", False),
    ("u@münchen.de", "u@xn--mnchen-3ya.de", True),
    ("u@MÜNCHEN.DE", "u@münchen.de", True),
    ("u@\uff4dünchen.de", "u@münchen.de", True),
    ("u@☃.test", "u@xn--n3h.test", False),
    ("straße@x.test", "strasse@x.test", False),
    ("u@x.test.", "u@x.test", True),
    ('"u"@x.test', "u@x.test", True),
    ("a.@x.test", "a@x.test", False),
    ("a" * 300 + "1@x.test", "a" * 300 + "2@x.test", False),
    ("a" * 300 + ":;u1@example.test", "a" * 300 + ":;u2@example.test", False),
    ("u@" + "a" * 300 + "1", "u@" + "a" * 300 + "2", False),
]


@pytest.mark.parametrize(("one", "other", "same"), IDENTITIES)
def test_identities(one, other, same):
    """Rules and triplets hold the same two addresses for one."""
    assert (sender(one) == sender(other)) is same
    assert (recipient(one) == recipient(other)) is same
    assert ((read(one).local, read(one).domain) == (read(other).local, read(other).domain)) is same or not (
        read(one).certain and read(other).certain
    )
    if read(one).certain:
        rule = Policy([Rule("x", Action.REJECT, recipients=(parse_entry(Kind.RECIPIENT, one),))])
        assert bool(rule.recipient(1, read(other))) is same


# Addresses as most are, with the parts of their keys since the first version.
KEYS = [
    ("<user@example.org>", b"user@example.org", b"user@example.org"),
    ("<User.Name@Example.ORG>", b"user.name@example.org", b"user.name@example.org"),
    ("<user+detail@example.org>", b"user+detail@example.org", b"user+detail@example.org"),
    ("<o'brien@example.org>", b"o'brien@example.org", b"o'brien@example.org"),
    ("<a_b-c=d@example.org>", b"a_b-c=d@example.org", b"a_b-c=d@example.org"),
    ("<user@sub_domain.example.org>", b"user@sub_domain.example.org", b"user@sub_domain.example.org"),
    ("<user@[192.0.2.1]>", b"user@[192.0.2.1]", b"user@[192.0.2.1]"),
    ("<user@[IPv6:2001:db8::1]>", b"user@[ipv6%3A2001%3Adb8%3A%3A1]", b"user@[ipv6%3A2001%3Adb8%3A%3A1]"),
    ('"john doe"@example.org', b"john%20doe@example.org", b"john%20doe@example.org"),
    ("<jürgen@example.org>", b"j%C3%BCrgen@example.org", b"j%C3%BCrgen@example.org"),
    ("<postmaster>", b"postmaster", b"postmaster"),
    ("<>", b"<>", b""),
    ("<list-return-4711-user=example.com@l.example>", b"list-return-#-#@l.example", None),
    ("<SRS0=HHH=TT=example.com=joe@f.example>", b"srs=#=#=example.com=joe@f.example", None),
    ("<prvs=3115a1b2c3=joe@example.org>", b"joe@example.org", None),
    ("<order20260131@shop.example>", b"order#@shop.example", b"order20260131@shop.example"),
    (
        "<" + "wxyz." * 30 + "z@example.org>",
        b"wxyz." * 16 + b"~9atildBFzR8_uj7fMczleQ",
        b"wxyz." * 16 + b"~9atildBFzR8_uj7fMczleQ",
    ),
]


@pytest.mark.parametrize(("path", "as_sender", "as_recipient"), KEYS)
def test_triplets_of_ordinary_addresses_stay(path, as_sender, as_recipient):
    """Stores go on: keys of ordinary addresses are what they always were, from a path and from its text."""
    grey = Greylist(None, GreyTerms())  # type: ignore[arg-type]  # keys are made without a store
    for text in (path, read(path).key, read(path).text):
        key = grey.keys("192.0.2.1", text, text)[0]
        name, _, other = key.removeprefix(b"hg1:{192.0.2.0/24}:").partition(b":")
        assert name == as_sender
        assert as_recipient in (None, other)


# Rules with conditions: action, senders, recipients; whether they hold where the sender, the recipient or
# both are uncertain. An exclusion alone holds for everybody else.
UNCERTAIN = [
    (Action.ACCEPT, ["x.test"], None, False, True, False),
    (Action.ACCEPT, ["!z.test"], None, False, True, False),
    (Action.ACCEPT, None, ["!z.test"], True, False, False),
    (Action.ACCEPT, ["x.test"], ["y.test"], False, False, False),
    (Action.ACCEPT, None, None, True, True, True),
    (Action.REJECT, ["x.test"], None, False, True, False),
    (Action.REJECT, ["!z.test"], None, False, True, False),
    (Action.REJECT, None, ["y.test"], True, False, False),
    (Action.REJECT, None, None, True, True, True),
    (Action.TEMPFAIL, ["x.test"], ["y.test"], False, False, False),
    (Action.GREYLIST, ["x.test"], None, True, True, True),
    (Action.GREYLIST, ["!x.test"], None, True, False, True),
    (Action.GREYLIST, ["other.test"], None, True, False, True),
    (Action.GREYLIST, ["x.test"], ["y.test"], True, True, True),
    (Action.GREYLIST, ["other.test"], ["y.test"], True, False, True),
    (Action.GREYLIST, None, None, True, True, True),
]
SURE_SENDER, SURE_RECIPIENT, UNSURE = read("a@x.test"), read("b@y.test"), strict("<x:;a@x.test>")


@pytest.mark.parametrize(
    ("action", "senders", "recipients", "no_sender", "no_recipient", "neither"), UNCERTAIN
)
def test_rules_and_uncertain_addresses(action, senders, recipients, no_sender, no_recipient, neither):
    """Unknown makes greylist match and all else not; it never lets in and never refuses."""
    conditions = {
        "senders": senders and tuple(parse_entry(Kind.SENDER, one) for one in senders),
        "recipients": recipients and tuple(parse_entry(Kind.RECIPIENT, one) for one in recipients),
    }
    policy = Policy([Rule("first", action, **conditions), Rule("end", Action.GREYLIST)])
    for from_, to, wanted in (
        (UNSURE, SURE_RECIPIENT, no_sender),
        (SURE_SENDER, UNSURE, no_recipient),
        (UNSURE, UNSURE, neither),
    ):
        mask = policy.transaction(policy.connect(None, None), None, from_, authenticated=False)
        mask = policy.recipient(mask, to)
        verdict = judge(policy, Facts(mask, mask))
        assert isinstance(verdict, Verdict)
        assert verdict.rule is policy.rules[0 if wanted else 1]


def test_none_is_not_noted_for_an_uncertain_address():
    """A list on trial does not count whom it cannot name."""
    entry = parse_entry(Kind.SENDER, "x.test")
    policy = Policy([Rule("trial", Action.NONE, senders=(entry,)), Rule("end", Action.GREYLIST)])
    for from_, noted in ((SURE_SENDER, 1), (UNSURE, 0)):
        mask = policy.transaction(policy.connect(None, None), None, from_, authenticated=False)
        verdict = judge(policy, Facts(mask, mask))
        assert isinstance(verdict, Verdict)
        assert len(verdict.noted) == noted


@pytest.mark.parametrize("length", [1, 100, 253, 400, 3000])
def test_a_long_helo_is_below_its_domain(length):
    """However much stands before it, a name ends in its domain: exclusions hold for it."""
    name = ("a." * length)[-length:].lstrip(".") + ".dyn.test"
    policy = Policy([Rule("x", Action.ACCEPT, helo=(parse_entry(Kind.HELO, "!.dyn.test"),))])
    assert policy.helo.name(name) == 0
    assert policy.helo.name(name + "x") == 1


PIECES = st.sampled_from([*'@<>"\\ .:;%!()[]\t\x01ßİ…\udc80', "a", "ü", "x.test", "[::1]", "@a:", "\\@", "é"])
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join))


@given(TEXTS)
def test_a_key_reads_as_itself(text):
    """A key is a text that stands for the same again; never empty, and never the null sender's by chance."""
    for box in (read(text), strict(text), delivered(text.encode("utf-8", "surrogatepass"), text, final=True)):
        assert read(box.key).key == box.key
        assert box.key
        assert box.null is (box == NULL)
        assert not (box.null and not box.certain)


@given(TEXTS, TEXTS)
def test_different_paths_are_different_keys(one, other):
    """What is certain is one key only with the same address, what is not only with the same path."""
    a, b = strict(one), strict(other)
    if a.key == b.key:
        assert a.certain is b.certain
        assert (a.local, a.domain) == (b.local, b.domain) if a.certain else one == other


@given(TEXTS)
def test_what_is_shown_reads_as_it_was_judged(text):
    """An uncertain path in the log is never taken for an address, by those who read the log."""
    box = strict(text)
    if not box.certain:
        assert not read(box.text).certain
    assert len(box.text) <= envelope.MAX_SHOWN + 2


@given(
    TEXTS.filter(str.isascii),
    st.sampled_from(["", "a", "A.b+c=d", "x_y-z"]),
    st.sampled_from(["x.test", "B.C"]),
)
def test_the_short_way_leads_to_the_same(text, local, domain):
    """What is taken for an ordinary address reads in the long way as the same."""
    for one in (text, f"{local}@{domain}", f"{local}{text}@{domain}"):
        box = envelope._ordinary(one)
        if box is not None:
            found = envelope._parsed(one)
            assert found is not None
            assert box == envelope._made(one, *found)
