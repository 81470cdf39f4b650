"""Frames for an MTA: what they are, where they may be sent, and what cannot be one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.protocol import replies, wire
from hybridgrey.protocol.wire import NotAllowedError
from parts.milterpeer import framed, strings
from protocol.shared import ABORT, DATA, EOM, QUIT, connect, helo, mail, opened, rcpt


def at(*frames, **terms):
    """A connection whose last event waits for its reply."""
    connection = opened(data=b"".join(frames), **terms)
    for frame in frames:
        if frame[4:5] != b"D":
            connection.next_event()
        if frame is not frames[-1] and connection.due:
            connection.reply(replies.CONTINUE)
    connection.sent(len(connection.output))
    return connection


ENVELOPE = (connect(), mail(), rcpt())


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (("450", "4.2.0", "later"), b"450 4.2.0 later"),
        (("554", "5.7.1", "100% no %s %%"), b"554 5.7.1 100%% no %%s %%%%"),
        (("451", "4.7.1", "a", "b", ""), b"451-4.7.1 a\r\n451-4.7.1 b\r\n451 4.7.1 "),
        (("554", "5.7.123", "b\u00fccher \udcff"), b"554 5.7.123 b\xc3\xbccher \xff"),
        (("450", "4.2.0", "\t"), b"450 4.2.0 \t"),
        (("450", "4.2.0", "x" * 980), b"450 4.2.0 " + b"x" * 980),
        (("450", "4.2.0", *["x"] * 32), b"\r\n".join([b"450-4.2.0 x"] * 31 + [b"450 4.2.0 x"])),
    ],
    ids=lambda value: str(value)[:30],
)
def test_refusals(made, wanted):
    """A reply of SMTP; a percent sign is written twice."""
    assert replies.refusal(*made) == framed(b"y" + wanted + b"\0")


@pytest.mark.parametrize(
    "wrong",
    [
        ("250", "2.0.0", "ok"),
        ("45", "4.2.0", "x"),
        ("4500", "4.2.0", "x"),
        ("45\u0663", "4.2.0", "x"),
        ("450\n", "4.2.0", "x"),
        ("450", "5.2.0", "x"),
        ("450", "4.2", "x"),
        ("450", "4.2.0\n", "x"),
        ("450", "4.2.1000", "x"),
        ("450", "4.2.0"),
        ("450", "4.2.0", *["x"] * 33),
        ("450", "4.2.0", "x" * 981),
        ("450", "4.2.0", "%" * 491),
        ("450", "4.2.0", "a\r\n250 ok"),
        ("450", "4.2.0", "a\nb"),
        ("450", "4.2.0", "a\0b"),
        ("450", "4.2.0", "a\x1bb"),
        ("450", "4.2.0", "a\x7fb"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_refusal(wrong):
    """What an MTA would not take, and a second line that a client chose, never leaves."""
    with pytest.raises(ValueError, match=r"reply"):
        replies.refusal(*wrong)


@given(st.text(max_size=200))
def test_a_refusal_is_one_line_or_none(text):
    """Whatever its text, a reply is one line of one string, and undoing the signs gives the text back."""
    try:
        made = replies.refusal("450", "4.2.0", text)
    except (ValueError, UnicodeEncodeError):
        return
    said = made[5:-1].removeprefix(b"450 4.2.0 ")
    assert not set(said) & {0, 10, 13}
    assert said.replace(b"%%", b"\0").count(b"%") == 0
    assert said.replace(b"%%", b"%").decode() == text


NO_HEADERS = [
    (b"", b"x"),
    (b"A B", b"x"),
    (b"A:", b"x"),
    (b"A\n", b"x"),
    (b"A\0", b"x"),
    (b"\xc3\xbc", b"x"),
    (b"A", b"x\nBcc: y"),
    (b"A", b"x\r\nBcc: y"),
    (b"A", b"x\n"),
    (b"A", b"x\r y"),
    (b"A", b"x\0y"),
    (b"A", b"x\n\n y"),
    (b"A", b"x" * 65536),
]


@pytest.mark.parametrize(("name", "value"), NO_HEADERS, ids=lambda value: str(value)[:20])
def test_what_is_no_header(name, value):
    """No header of ours has another one in it, or is longer than a frame."""
    for make in (
        replies.header_added,
        lambda *both: replies.header_inserted(0, *both),
        lambda *both: replies.header_changed(1, *both),
    ):
        with pytest.raises(ValueError, match=r"header|too many"):
            make(name, value)


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (replies.header_added(b"A", b"x\n\ty"), b"h" + strings("A", "x\n\ty")),
        (replies.header_inserted(0, b"A", b"x"), b"i\0\0\0\0" + strings("A", "x")),
        (replies.header_changed(2, b"A", b""), b"m\0\0\0\2" + strings("A", "")),
        (replies.recipient_added(b"<a@b>"), b"+" + strings("<a@b>")),
        (replies.recipient_added(b"<a@b>", b"NOTIFY=NEVER"), b"2" + strings("<a@b>", "NOTIFY=NEVER")),
        (replies.recipient_deleted(b"<a@b>"), b"-" + strings("<a@b>")),
        (replies.sender_changed(b"<>"), b"e" + strings("<>")),
        (replies.sender_changed(b"<a@b>", b"SIZE=1"), b"e" + strings("<a@b>", "SIZE=1")),
        (replies.body_replaced(b"x\0y"), b"bx\0y"),
        (replies.quarantined(b"why"), b"q" + strings("why")),
        (replies.PROGRESS, b"p"),
        (replies.SKIP, b"s"),
    ],
)
def test_frames(made, wanted):
    """As libmilter sends them."""
    assert made == framed(wanted)


@pytest.mark.parametrize(
    "make",
    [
        lambda: replies.recipient_added(b""),
        lambda: replies.recipient_added(b"<a\nb>"),
        lambda: replies.recipient_deleted(b"<a\0b>"),
        lambda: replies.sender_changed(b"<a>", b"X\r\n"),
        lambda: replies.quarantined(b""),
        lambda: replies.body_replaced(b"x" * 65536),
    ],
)
def test_what_is_no_edit(make):
    """Texts have no line break and an end; frames have a size."""
    with pytest.raises(ValueError, match=r"empty|too many"):
        make()


EDITS = {
    wire.ADD_HEADERS: (replies.header_added(b"A", b"b"), replies.header_inserted(0, b"A", b"b")),
    wire.CHANGE_HEADERS: (replies.header_changed(1, b"A", b"b"),),
    wire.CHANGE_BODY: (replies.body_replaced(b"x"),),
    wire.ADD_RECIPIENTS: (replies.recipient_added(b"<a>"),),
    wire.ADD_RECIPIENTS_WITH_PARAMETERS: (replies.recipient_added(b"<a>", b"X=Y"),),
    wire.DELETE_RECIPIENTS: (replies.recipient_deleted(b"<a>"),),
    wire.QUARANTINE: (replies.quarantined(b"why"),),
    wire.CHANGE_SENDER: (replies.sender_changed(b"<a>"),),
}


@pytest.mark.parametrize("action", EDITS)
def test_an_edit_needs_its_action(action):
    """Each edit goes with the action that was agreed and with no other."""
    for frame in EDITS[action]:
        connection = at(*ENVELOPE, EOM, actions=action)
        connection.edit(frame)
        connection.reply(replies.CONTINUE)
        assert connection.output == frame + replies.CONTINUE
        connection = at(*ENVELOPE, EOM, actions=0x1FF & ~action)
        with pytest.raises(NotAllowedError):
            connection.edit(frame)
        assert connection.output == b""


@pytest.mark.parametrize("frames", [ENVELOPE, (*ENVELOPE, DATA), (connect(),), (*ENVELOPE, ABORT), ()])
def test_an_edit_needs_the_end_of_a_message(frames):
    """Nowhere else is one sent, nor after the reply."""
    connection = at(*frames, actions=0x1FF)
    with pytest.raises(NotAllowedError):
        connection.add_header(b"A", b"b")
    connection = at(*ENVELOPE, EOM, actions=0x1FF)
    connection.reply(replies.CONTINUE)
    with pytest.raises(NotAllowedError):
        connection.add_header(b"A", b"b")
    assert connection.output == replies.CONTINUE


def test_only_edits_are_edits_and_only_replies_replies():
    """Neither is taken for the other."""
    connection = at(*ENVELOPE, EOM, actions=0x1FF)
    for frame in (replies.CONTINUE, replies.PROGRESS):
        with pytest.raises(NotAllowedError):
            connection.edit(frame)
    for frame in (replies.PROGRESS, replies.header_added(b"A", b"b")):
        with pytest.raises(NotAllowedError):
            connection.reply(frame)


@pytest.mark.parametrize("frames", [(), (ABORT,), (QUIT,), (*ENVELOPE, ABORT)])
def test_no_reply_where_none_is_due(frames):
    """A second reply would be taken for the next command's."""
    connection = at(*frames)
    for frame in (replies.CONTINUE, replies.REJECT):
        with pytest.raises(NotAllowedError):
            connection.reply(frame)
    with pytest.raises(NotAllowedError):
        connection.progress()
    assert connection.output == b""


def test_one_reply_only():
    """The same, after a reply."""
    connection = at(*ENVELOPE)
    connection.reply(replies.TEMPFAIL)
    with pytest.raises(NotAllowedError):
        connection.reply(replies.CONTINUE)


def test_a_message_can_be_discarded_a_client_cannot():
    """Postfix gives a filter up that wants it."""
    for frames in ((connect(),), (connect(), helo())):
        with pytest.raises(NotAllowedError):
            at(*frames).reply(replies.DISCARD)
    for frames in ((connect(), mail()), ENVELOPE, (*ENVELOPE, EOM)):
        at(*frames).reply(replies.DISCARD)


def test_skip_is_for_bodies():
    """And for an MTA that can."""
    body = framed(b"Bx")
    at(*ENVELOPE, body, steps=wire.CAN_SKIP).reply(replies.SKIP)
    for connection in (at(*ENVELOPE, body), at(*ENVELOPE, steps=wire.CAN_SKIP)):
        with pytest.raises(NotAllowedError):
            connection.reply(replies.SKIP)


def test_progress_comes_before_the_reply():
    """It may be sent again and again, and leaves the reply due."""
    connection = at(*ENVELOPE)
    connection.progress()
    connection.progress()
    connection.reply(replies.REJECT)
    assert connection.output == replies.PROGRESS * 2 + replies.REJECT


@pytest.mark.parametrize(("value", "sent"), [(b"x", b" x"), (b" x", b" x"), (b"\tx", b"\tx"), (b"", b" ")])
def test_leading_space(value, sent):
    """The space after the colon is ours to send once that was agreed, and not before."""
    for steps, wanted in ((wire.LEADING_SPACE, sent), (0, value)):
        connection = at(*ENVELOPE, EOM, actions=0x1FF, steps=steps)
        connection.add_header(b"A", value)
        assert connection.output == framed(b"h" + strings("A", wanted))
        connection = at(*ENVELOPE, EOM, actions=0x1FF, steps=steps)
        connection.insert_header(3, b"A", value)
        assert connection.output == framed(b"i" + struct.pack("!I", 3) + strings("A", wanted))
        connection = at(*ENVELOPE, EOM, actions=0x1FF, steps=steps)
        connection.change_header(3, b"A", value)
        # Nothing but nothing deletes a header.
        wanted = wanted if value else b""
        assert connection.output == framed(b"m" + struct.pack("!I", 3) + strings("A", wanted))
