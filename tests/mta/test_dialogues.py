"""Whole dialogues through Postfix and Sendmail: the same answers, recipients and headers."""

from __future__ import annotations

import re

import pytest

from mta.cases import FILES, PASS, settings
from mta.dialogues import DIALOGUES, RULES, Dialogue, Message
from mta.talk import opened, plain
from parts.base import wait_until
from parts.daemon import Daemon
from parts.milterpeer import MilterPeer
from parts.redisserver import Redis

pytestmark = pytest.mark.mta


@pytest.fixture(scope="module")
def daemon(resolver, engine):
    with Redis() as redis:
        # One worker, whose cache is warm: a list's text that is late would be left out of the reply.
        config = {**settings(redis, resolver, RULES), "workers": 1}
        with Daemon(config, files=FILES, unix=True) as running:
            for address in ("192.0.2.10", "2001:db8:b10c::1"):
                with MilterPeer(running.address) as peer:
                    peer.connect("warm.example", address)
                    peer.mail()
                    wait_until(
                        lambda p=peer: "Listed" in p.rcpt("<warm@rcpt.example>").text, "the list's text"
                    )
            yield running


def sent(client, dialogue: Dialogue, message: Message) -> list[str]:
    """Say one message; the recipients that passed."""
    if message.before:
        assert client.command(message.before).code == 250
    assert client.mail(message.sender).code == 250
    passed = []
    for local, wanted in message.told.items():
        answer = plain(client.rcpt(dialogue.recipient(local)))
        assert re.fullmatch(wanted, answer), (local, answer)
        passed += [dialogue.recipient(local)] * (wanted == PASS)
    if passed and not message.cut:
        assert client.data().code == 250
        return passed
    if not message.cut:
        client.rset()
    return []


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=str)
def test_each_dialogue(dialogue: Dialogue, mta, daemon):
    """Each recipient is told what the table has, those that passed get the message, with its headers."""
    before = len(mta.sink.mails)
    expected = []
    with opened(
        mta, dialogue.address, name=dialogue.host, forged=dialogue.forged, login=dialogue.login
    ) as client:
        for message in dialogue.messages:
            if passed := sent(client, dialogue, message):
                expected.append((sorted(passed), message.results))
        client.quit()
    delivered = expected_mails(mta, before, sum(len(people) for people, _ in expected))
    for people, results in expected:
        mails = [mail for mail in delivered if set(mail.recipients) <= set(people)]
        told = [mail for mail in mails if headers_fit(mail, results)]
        assert {one for mail in told for one in mail.recipients} == set(people), [m.data for m in mails]
    for local in {local for message in dialogue.messages for local in message.told}:
        verdict = daemon.verdict(dialogue.recipient(local))
        assert verdict["client"] == dialogue.address
        assert dialogue.lists <= set(verdict["lists"])


def expected_mails(mta, before: int, recipients: int):
    """What the sink got since, once it is for so many recipients; an MTA may send to each by itself."""

    def found():
        return sum(len(mail.recipients) for mail in mta.sink.mails[before:]) >= recipients

    wait_until(found, f"mail for {recipients} recipients")
    return mta.sink.mails[before:]


def headers_fit(mail, results) -> bool:
    """Whether a message's Authentication-Results are those wanted, and nothing says it was delayed."""
    found = mail.header("Authentication-Results")
    fit = len(found) == len(results) and all(map(re.fullmatch, results, found))
    return fit and not mail.header("X-Greylist")


def test_queue_ids_lead_from_our_log_to_the_mtas(mta, daemon):
    """The queue id in the log is the MTA's own; Postfix has it from the second recipient on."""
    with opened(mta, "192.0.2.20") as client:
        client.mail("a@sender.example")
        name = type(mta).__name__.lower()
        for local in ("first", "second"):
            assert client.rcpt(f"{local}@{name}.example").code == 250
        said = str(client.data())
    ids = [daemon.verdict(f"{local}@{name}.example")["queue_id"] for local in ("first", "second")]
    assert ids[1] is not None
    assert ids[1] in said
    assert ids[0] == (ids[1] if name == "sendmail" else None)
