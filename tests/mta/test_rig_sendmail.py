"""The private Sendmail by itself and with a milter of a few lines."""

from __future__ import annotations

import pytest

from parts.plainmilter import PlainMilter
from parts.sendmail import Sendmail

pytestmark = [pytest.mark.mta, pytest.mark.usefixtures("with_sendmail")]


@pytest.fixture(scope="module")
def milter():
    with PlainMilter(unix=True) as running:
        yield running


@pytest.fixture(scope="module")
def mta(milter):
    with Sendmail(milter.spec) as running:
        yield running


def test_without_a_milter_mail_is_delivered():
    """A bare Sendmail takes a message and hands it to the sink."""
    with Sendmail() as mta:
        with mta.client("192.0.2.1") as client:
            client.ehlo()
            assert client.transaction("a@example.org", ["b@example.net"])[-1].code == 250
        mail = mta.sink.wait("b@example.net")
        assert mail.sender == "a@example.org"
        assert mail.header("Subject") == ["test"]


def test_the_milter_answers_through_sendmail(mta):
    """Its replies reach the client with their texts, its header the delivered mail."""
    with mta.client("192.0.2.1", "mail.example.org") as client:
        client.ehlo()
        answers = client.transaction("a@example.org", ["b@x.test", "reject@x.test", "greylist@x.test"])
        assert str(answers[1]) == "554 5.7.1 plain says reject@"
        assert answers[2].code == 450
        assert answers[2].text.endswith("plain says greylist@")
        assert answers[3].code == 250
    assert mta.sink.wait("b@x.test").header("X-Plain") == ["seen"]


@pytest.mark.parametrize(
    ("address", "name", "forged", "host", "resolve"),
    [
        ("192.0.2.11", "good.example.org", False, "good.example.org", "OK"),
        ("192.0.2.12", "", False, "[192.0.2.12]", "FAIL"),
        ("192.0.2.13", "forged.example.org", True, "[192.0.2.13]", "FORGED"),
        ("2001:db8::14", "six.example.org", False, "six.example.org", "OK"),
    ],
)
def test_clients_have_addresses_and_names(mta, milter, address, name, forged, host, resolve):
    """The milter sees the client's own address, and in {client_resolve} whether its name is true."""
    with mta.client(address, name, forged=forged) as client:
        client.ehlo()
        client.transaction("a@example.org", ["reject@x.test"])
    calls = [call for call in milter.calls("connect") if call["args"][2] == address]
    assert [(call["args"][0], call["{client_resolve}"]) for call in calls] == [(host, resolve)]
