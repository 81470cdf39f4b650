"""Records and macros: what is read, what is refused and where, how macros expand."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybridgrey.spf import macro
from hybridgrey.spf.macro import MacroError
from hybridgrey.spf.record import (
    MAX_TERMS,
    MAX_TEXT,
    Kind,
    Record,
    RecordError,
    Result,
    is_record,
    parse,
    read,
)

GOOD = [
    # text, what its terms are: kind, result, domain, network or prefixes
    ("v=spf1", []),
    ("v=spf1   ", []),
    ("V=SPF1 A -ALL", [("a", "pass"), ("all", "fail")]),
    (
        "v=spf1 ?ptr ~exists:%{ir}.x.example +all",
        [("ptr", "neutral"), ("exists", "softfail"), ("all", "pass")],
    ),
    ("v=spf1 all a mx", [("all", "pass")]),
    ("v=spf1 a.b=c A=d all=e mx", [("mx", "pass")]),
    ("v=spf1 moo= ip4:0.0.0.0/0 ip6:::/0", [("ip4", "pass"), ("ip6", "pass")]),
    ("v=spf1 ip6:::ffff:1.2.3.4/96", [("ip6", "pass")]),
    ("v=spf1 a:%{d} a:x%%", [("a", "pass"), ("a", "pass")]),
    ("v=spf1 a:x.example. a:x.1-2 a:x.xn--p1ai/0//0", [("a", "pass")] * 3),
    ("v=spf1 a:x.example/9 a:%{d}//7 mx/24//48", [("a", "pass"), ("a", "pass"), ("mx", "pass")]),
]


@pytest.mark.parametrize(("text", "wanted"), GOOD)
def test_read(text, wanted):
    """A record is its mechanisms, up to "all"."""
    record = parse(text.encode())
    assert [(term.kind.value, term.result.value) for term in record.terms] == wanted
    assert all(term.text in text for term in record.terms)


def test_redirect():
    """It is kept as it was written, unless "all" decides before."""
    redirect = parse(b"v=spf1 redirect=%{d}.a.example").redirect
    assert redirect is not None
    assert macro.target(redirect, {"d": "x"}) == "x.a.example"
    assert parse(b"v=spf1 redirect=a.example ?all").redirect is None


BAD = [
    # text, reason, character, term shown
    ("v=spf1 moo -all", "neither", 8, "moo"),
    ("v=spf1 -all foo", "neither", 13, "foo"),
    ("v=spf1 a: -all", "domain is missing", 10, "a:"),
    ("v=spf1 include -all", "domain is missing", 15, "include"),
    ("v=spf1 include:example", "no top-level domain", 16, "include:example"),
    ("v=spf1 a:x.123", "no top-level domain", 12, "a:x.123"),
    ("v=spf1 a:x.-com", "no top-level domain", 12, "a:x.-com"),
    ("v=spf1 a:x.example/33", "prefix length over 32", 20, "a:x.example/33"),
    ("v=spf1 a//129", "prefix length over 128", 11, "a//129"),
    ("v=spf1 a/024", "bad prefix length", 9, "a/024"),
    ("v=spf1 a/24/64", "bad prefix length", 9, "a/24/64"),
    ("v=spf1 mx/", "bad prefix length", 10, "mx/"),
    ("v=spf1 ip4:192.0.2.300", "no network", 11, "ip4:192.0.2.300"),
    ("v=spf1 ip4:192.0.02.3", "no network", 11, "ip4:192.0.02.3"),
    ("v=spf1 ip4:192.0.2", "no network", 11, "ip4:192.0.2"),
    ("v=spf1 ip4:192.0.2.1/33", "prefix length over 32", 22, "ip4:192.0.2.1/33"),
    ("v=spf1 ip6:2001:db8::1/129", "prefix length over 128", 24, "ip6:2001:db8::1/129"),
    ("v=spf1 ip6:fe80::1%eth0", "no network", 11, "ip6:fe80::1%eth0"),
    ("v=spf1 all:x", "nothing may follow", 11, "all:x"),
    ("v=spf1 a:%{x}", "no macro", 12, "a:%{x}"),
    ("v=spf1 a:%{c}", "no macro", 12, "a:%{c}"),
    ("v=spf1 a:%{d0}", "zero parts", 13, "a:%{d0}"),
    ("v=spf1 a:%{d", "a lone %", 10, "a:%{d"),
    ("v=spf1 x=%", "a lone %", 10, "x=%"),
    ("v=spf1 redirect=", "domain is missing", 17, "redirect="),
    ("v=spf1 redirect=a.example redirect=b.example", "a second one", 36, "redirect=b.example"),
    ("v=spf1 exp=a.example exp=a.example", "a second one", 26, "exp=a.example"),
    ("v=spf1 a\tmx", "neither", 8, "a\\tmx"),
    ("v=spf1 a:\u00fc.example", "not allowed", 10, "a:\\xfc.example"),
    ("v=spf1 a:x.example\x00", "not allowed", 19, "a:x.example\\x00"),
]


@pytest.mark.parametrize(("text", "reason", "at", "term"), BAD)
def test_refused(text, reason, at, term):
    """What is wrong is told, with the term and the character of the record at which it is."""
    with pytest.raises(RecordError) as error:
        parse(text.encode("latin-1"))
    shown = str(error.value)
    assert reason in shown
    assert f'in "{term}"' in shown
    assert f"at character {at}," in shown


def test_long():
    """A record over the limit is refused at once, one below it is read; a long term is shown in part."""
    assert isinstance(read(b"v=spf1" + b" a" * 40_000), RecordError)
    assert isinstance(read(b"v=spf1" + b" a" * MAX_TERMS + b" " * 99), Record)
    assert isinstance(read(b"v=spf1" + b" a" * (MAX_TERMS + 1)), RecordError)
    assert isinstance(read(b"v=spf1" + b" " * (MAX_TEXT - 6)), Record)
    assert isinstance(read(b"v=spf1" + b" " * (MAX_TEXT - 5)), RecordError)
    assert len(str(read(b"v=spf1 " + b"x" * 8000))) < 150


IS_RECORD = [
    (b"v=spf1", True),
    (b"V=sPf1 a", True),
    (b"v=spf10", False),
    (b"v=spf1\ta", False),
    (b" v=spf1", False),
]


@pytest.mark.parametrize(("text", "wanted"), IS_RECORD)
def test_is_record(text, wanted):
    """The version is a word."""
    assert is_record(text) is wanted


VALUES = {
    "s": "strong-bad@email.example.com",
    "l": "strong-bad",
    "o": "email.example.com",
    "d": "email.example.com",
    "i": "192.0.2.3",
    "v": "in-addr",
    "h": "mx.example.org",
    "p": "mx.example.org",
}
LONG = "x" * 60
EXPANDED = [
    # RFC 7208 section 7.4
    ("%{s}", "strong-bad@email.example.com"),
    ("%{o}", "email.example.com"),
    ("%{d4}", "email.example.com"),
    ("%{d3}", "email.example.com"),
    ("%{d2}", "example.com"),
    ("%{d1}", "com"),
    ("%{dr}", "com.example.email"),
    ("%{d2r}", "example.email"),
    ("%{l}", "strong-bad"),
    ("%{l-}", "strong.bad"),
    ("%{lr}", "strong-bad"),
    ("%{lr-}", "bad.strong"),
    ("%{l1r-}", "strong"),
    ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
    ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
    ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
    ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
    ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
    # ours
    ("%{S}", "strong-bad%40email.example.com"),
    ("%%%_%-.Example", "% %20.example"),
    ("%{d99999999999999999999}", "email.example.com"),
    ("%{D1R}", "email"),
    ("%{l+,-/_=.}", "strong.bad"),
    ("x.example.", "x.example"),
    # Labels go on the left until 253 characters are left.
    (f"a.b.{LONG}.{LONG}.{LONG}.{LONG}.cc.dd.eee", f"{LONG}.{LONG}.{LONG}.{LONG}.cc.dd.eee"),
    (f"{LONG}.{LONG}.{LONG}.{LONG}.%{{d}}", f"{LONG}.{LONG}.{LONG}.email.example.com"),
    (".".join(["%{d}"] * 1000), ".".join(["email.example.com"] * 14)),
]


@pytest.mark.parametrize(("text", "wanted"), EXPANDED)
def test_expanded(text, wanted):
    """Section 7.3's transformers, as the RFC's examples have them."""
    assert macro.target(macro.parse(text), VALUES) == wanted


@pytest.mark.parametrize("length", [252, 253, 254, 255])
def test_exact_limit(length):
    """253 characters fit; the last dot does not count."""
    name = (f"{LONG}." * 5)[-length + 4 :] + "x.de"
    assert len(name) == length
    assert len(macro.target(macro.parse(name + "."), {})) == (
        length if length <= 253 else len(name.partition(".")[2])
    )


PIECES = (
    "a mx ptr all ip4: ip6: include: exists: redirect= exp= x= %{ } %% r2- 192.0.2.0 /24 //64 ::1 x.example "
    ". : - ~ ? %{ir} %{l} \x00 \u00fc"
)
TERMS = st.sampled_from([*PIECES.split(" "), " "])


@given(st.lists(TERMS, max_size=20).map("".join) | st.text(max_size=40))
@example("a:" + "a" * 8000)
@example("a:" + "1." * 4000)
@example("a:" + "%" * 8000)
@example("a:" + "/1" * 4000)
@example("a:%{d" + "9" * 8000 + "}")
def test_any_text(text):
    """Any text is a record or is refused with one printable line of bounded length; never anything else."""
    found = read(b"v=spf1 " + text.encode("utf-8", "surrogatepass"))
    if isinstance(found, RecordError):
        assert str(found).isprintable()
        assert len(str(found)) < 200
    else:
        assert all(isinstance(term.kind, Kind) and isinstance(term.result, Result) for term in found.terms)


@given(st.lists(TERMS, max_size=10).map("".join), st.text(max_size=300), st.text(max_size=300))
def test_any_expansion(text, local, domain):
    """Any macro string expands, whatever a sender says, to a name of bounded length or of one label."""
    try:
        spec = macro.parse(text)
    except MacroError:
        return
    name = macro.target(spec, dict.fromkeys(macro.ALL_LETTERS, domain) | {"l": local})
    assert len(name) <= 253 or "." not in name[-254:]
