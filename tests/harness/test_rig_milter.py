"""The rig's milter client against a milter of a few lines, so that session tests can trust it."""

from __future__ import annotations

import pytest

from parts.milterpeer import MilterPeer
from parts.plainmilter import PlainMilter


@pytest.fixture(scope="module", params=[False, True], ids=["inet", "unix"])
def milter(request):
    with PlainMilter(unix=request.param) as running:
        yield running


def test_a_whole_message_goes_through(milter):
    """Every step gets its answer and the added header comes at the end."""
    with MilterPeer(milter.address) as peer:
        assert peer.connect("mail.example.org", "192.0.2.9", macros={"{client_resolve}": "FORGED"}).passes
        assert peer.helo("mail.example.org").passes
        assert peer.mail("<a@example.org>", "SIZE=100").passes
        assert peer.rcpt("<b@example.net>").passes
        rejected = peer.rcpt("<reject@example.net>")
        assert (rejected.code, rejected.text) == ("554", "554 5.7.1 plain says reject@")
        assert peer.rcpt("<greylist@example.net>").code == "450"
        message = peer.content({"Subject": "x"})
        assert message.reply.kind == "continue"
        assert message.header("x-plain") == ["seen"]
        peer.quit()
    seen = [call for call in milter.calls("connect") if call["args"][-1] == "192.0.2.9"]
    assert seen[0]["args"][0] == "mail.example.org"
    assert seen[0]["{client_resolve}"] == "FORGED"


@pytest.mark.parametrize(
    ("address", "family", "seen"),
    [
        ("2001:db8::7", "", "2001:db8::7"),
        ("/run/local.sock", "L", "/run/local.sock"),
        ("192.0.2.7", "U", "None"),
    ],
)
def test_each_family_arrives(milter, address, family, seen):
    """IPv6, unix and unknown clients reach the milter as an MTA would report them."""
    with MilterPeer(milter.address) as peer:
        assert peer.connect(f"family-{family}", address, family=family).passes
        peer.mail()
        assert peer.rcpt().passes
        peer.abort()
        assert peer.mail("<again@example.org>").passes
        peer.quit()
    calls = [call for call in milter.calls("connect") if call["args"][0] == f"family-{family}"]
    assert calls[0]["args"][2] == seen


def test_eight_bit_bytes_go_out_verbatim(milter):
    """A recipient that is no UTF-8 arrives byte for byte."""
    with MilterPeer(milter.address) as peer:
        peer.connect()
        peer.mail()
        peer.rcpt(b"<\xe9\xff@example.net>")
        peer.quit()
    assert any(r"\xe9\xff" in call["args"][0] for call in milter.calls("rcpt"))
