"""The private Postfix by itself and with a milter of a few lines."""

from __future__ import annotations

import pytest

from parts.base import has_ipv6
from parts.plainmilter import PlainMilter
from parts.postfix import Postfix

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_postfix")]


@pytest.fixture(scope="module")
def milter():
    with PlainMilter() as running:
        yield running


@pytest.fixture(scope="module")
def mta(milter):
    with Postfix(milter.spec) as running:
        yield running


def test_without_a_milter_mail_is_delivered():
    """A bare Postfix takes a message and hands it to the sink."""
    with Postfix() as mta:
        with mta.connect() as client:
            client.ehlo()
            assert client.transaction("a@example.org", ["b@example.net"])[-1].code == 250
        mail = mta.sink.wait("b@example.net")
        assert mail.sender == "a@example.org"
        assert mail.header("Subject") == ["test"]


def test_the_milter_answers_through_postfix(mta, milter):
    """Its replies reach the client with their texts, its header the delivered mail."""
    with mta.client("192.0.2.1", "mail.example.org") as client:
        client.ehlo()
        answers = client.transaction("a@example.org", ["b@x.test", "reject@x.test", "greylist@x.test"])
        assert [str(answer) for answer in answers[1:3]] == [
            "554 5.7.1 plain says reject@",
            "450 4.2.0 plain says greylist@",
        ]
        assert answers[3].code == 250
    assert mta.sink.wait("b@x.test").header("X-Plain") == ["seen"]


@pytest.mark.parametrize(
    ("address", "name", "forged", "wanted"),
    [
        ("192.0.2.11", "mail.example.org", False, "mail.example.org"),
        ("192.0.2.12", "", False, "[192.0.2.12]"),
        ("192.0.2.13", "mail.example.org", True, "[192.0.2.13]"),
        ("2001:db8::14", "six.example.org", False, "six.example.org"),
    ],
)
def test_xclient_gives_the_client_its_address_and_name(mta, milter, address, name, forged, wanted):
    """The milter sees the address of XCLIENT, and the name only when it is verified."""
    with mta.client(address, name, forged=forged) as client:
        client.ehlo()
        client.transaction("a@example.org", ["reject@x.test"])
    calls = [call["args"] for call in milter.calls("connect") if call["args"][2] == address]
    assert [call[0] for call in calls] == [wanted]


def test_xclient_login_is_an_authenticated_session(mta, milter):
    """LOGIN reaches the milter as the macro {auth_authen}."""
    with mta.client("192.0.2.20", login="joe") as client:
        client.ehlo()
        client.transaction("a@example.org", ["auth@x.test"])
    calls = [call for call in milter.calls("rcpt") if call["args"][0] == "<auth@x.test>"]
    assert calls[0]["{auth_authen}"] == "joe"


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback")
def test_postfix_listens_on_ipv6(mta):
    """A client may come over ::1."""
    with mta.connect("::1") as client:
        assert client.ehlo().code == 250
