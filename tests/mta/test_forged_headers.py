"""Headers that claim to be ours, through both MTAs: they are gone, and all others are as they were."""

from __future__ import annotations

import pytest

from hybridgrey.filter import forged
from mta.talk import opened, plain
from parts.daemon import Daemon
from parts.fakedns import FakeDns
from parts.redisserver import Redis
from parts.sendmail import Sendmail

pytestmark = pytest.mark.mta

ALLOWED = "192.0.2.77"
HERE = b"mx.example.test"
AR = b"Authentication-Results: "
GREY = b"X-Greylist: delayed 9 seconds by hybridgrey at mx.example.test"
FOLDED = AR + b"(a\r\n\t(nested\r\n comment))\r\n " + HERE + b"\r\n\t1;\r\n dkim=pass"


@pytest.fixture(scope="module")
def daemon(engine):
    with Redis() as redis, FakeDns() as dns:
        dns.zone("wl.test", listed={ALLOWED: "127.0.5.2"})
        settings = {
            "store": {"url": redis.unix_url},
            "dns": {"nameservers": [dns.address]},
            "rule": [
                {"name": "wl", "dns": ["wl.test=127.0.[0..255].[2..3]"], "action": "accept"},
                {"name": "the rest", "action": "greylist"},
            ],
        }
        with Daemon(settings, unix=True) as running:
            yield running


def interleaved(number):
    """Forged ones among others' of the same names, and what is left of them."""
    fields = []
    for n in range(number):
        fields += [
            AR + b"other.test; x=%d" % n,
            AR + HERE + b"; x=%d" % n,
            b"X-Greylist: by postgrey %d" % n,
            GREY,
        ]
    return fields, [field for number, field in enumerate(fields) if number % 2 == 0]


LONG = b"\r\n ".join(20 * [900 * b"z"])
HUGE = b"\r\n ".join(70 * [900 * b"z"])
CASES = {
    "none": ([AR + b"other.test; dkim=pass", b"X-Greylist: by postgrey"], [0, 1]),
    "one": ([AR + HERE + b"; dkim=pass"], []),
    "forms": (
        [
            FOLDED,
            AR + b"other.test; a=1",
            b"AUTHENTICATION-results:" + HERE.upper() + b"; dkim=pass",
            b"Authentication-Results : " + HERE + b"; dkim=pass",
            b"Authentication-Results\t:" + HERE + b"; dkim=pass",
            AR + b'"' + HERE + b'" ; dkim=pass',
            AR + b"other.test; a=2",
            b"x-greylist:\r\n\tdelayed 9 seconds\r\n\tby hybridgrey at " + HERE,
            b"X-Greylist: delayed 9 seconds by hybridgrey at other.test",
        ],
        [1, 6, 8],
    ),
    "8-bit": (
        [
            AR + b"\xff\xfe; dkim=pass",
            AR + b"\xff" + HERE + b"; dkim=pass",
            b"X-A: \xff",
            AR + "ü.test; dkim=pass".encode(),
            AR + HERE + b"; dkim=pass \xff",
            AR + b"other.test; dkim=pass",
        ],
        [0, 2, 3, 5],
    ),
    "empty": (
        [
            b"Authentication-Results:",
            AR + HERE + b"; x",
            b"Authentication-Results: ",
            b"Authentication-Results:\r\n " + HERE + b"; x",
            AR + b";",
        ],
        [0, 2, 4],
    ),
    "long": ([AR + b"other.test; " + LONG, AR + HERE + b"; x", AR + b"a.test; y"], [0, 2]),
    "huge": (
        [
            AR + b"other.test; " + HUGE,
            AR + HERE + b"; " + HUGE,
            AR + b"a.test; y",
            AR + b"(" + HUGE + b") " + HERE + b"; x",
        ],
        [0, 2],
    ),
}


def sent(mta, name, fields):
    """The header fields of ours and others' as they were delivered, without those that we add."""
    person = f"{name}@x.example"
    message = b"\r\n".join([b"From: <a@y.example>", b"Subject: x", *fields, b"", b"body", b""])
    with opened(mta, ALLOWED) as client:
        assert client.transaction("a@y.example", [person], message)[-1].code == 250
    head = mta.sink.wait(person).data.partition(b"\r\n\r\n")[0].replace(b"\r\n\t", b"\r\n ")
    lines = [flat(line) for line in head.replace(b"\r\n ", b"\x00").split(b"\r\n")]
    return [
        line for line in lines if line.split(b":")[0] in (b"authentication-results", b"x-greylist", b"x-a")
    ]


def flat(field):
    """A field whose name, blanks and folding are one form."""
    name, _, value = field.replace(b"\r\n", b"\x00").partition(b":")
    return name.strip().lower() + b":" + b" ".join(value.replace(b"\x00", b" ").split())


@pytest.mark.parametrize("name", CASES)
def test_forged_headers_are_gone(mta, name):
    """Only the forged ones go, wherever they stand and whatever is around them; ours stands first."""
    fields, stay = CASES[name]
    if name == "huge" and isinstance(mta, Sendmail):
        pytest.skip("Sendmail takes no more than 32768 octets of headers")
    first, *others = sent(mta, name, fields)
    assert first == flat(AR + HERE + b"; dnswl=pass dns.zone=wl.test policy.ip=127.0.5.2")
    # Postfix cuts a header of more than some 60,000 octets.
    assert [one[:50_000] for one in others] == [flat(fields[index])[:50_000] for index in stay]


def test_many_among_others(mta):
    """Hundreds, with others' of the same name between them."""
    fields, stay = interleaved(150)
    assert sent(mta, "many", fields)[1:] == [flat(field) for field in stay]


def test_each_message_of_a_connection(mta):
    """A second message is counted from its own beginning, one that was given up counts for nothing."""
    person = "second@x.example"
    with opened(mta, ALLOWED) as client:
        one = b"\r\n".join([AR + HERE + b"; x", AR + b"a.test; x", b"", b"body", b""])
        client.transaction("a@y.example", ["first@x.example"], one)
        client.mail("a@y.example")
        client.rcpt("never@x.example")
        client.rset()
        two = b"\r\n".join([AR + b"a.test; x", AR + b"b.test; x", AR + HERE + b"; x", b"", b"body", b""])
        assert client.transaction("a@y.example", [person], two)[-1].code == 250
    results = mta.sink.wait(person).header("Authentication-Results")
    assert [one.partition(";")[2].strip() for one in results][1:] == ["x", "x"]
    assert [one.partition(";")[0] for one in results] == ["mx.example.test", "a.test", "b.test"]


def test_too_many_are_refused(mta):
    """A message that is made of forged headers is refused, in words."""
    short = b"X-Greylist: =?"
    with opened(mta, ALLOWED) as client:
        message = b"\r\n".join([short] * (forged.MOST + 1) + [b"", b"body", b""])
        answer = plain(client.transaction("a@y.example", ["toomany@x.example"], message)[-1])
    assert answer == "554 5.7.1 Too many header fields that claim to be this site's"
