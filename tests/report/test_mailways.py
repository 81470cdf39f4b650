"""The ways of messages by Postfix's log, and which recorded verdicts are of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.report import mailways
from hybridgrey.report.mailways import MailWays
from hybridgrey.report.spamjoin import SpamJoin

T = 1_790_000_000.0
HIS = "192.0.2.1"
CLIENT = "postfix/smtpd[7]: 4A1: client=mail.example[192.0.2.1]"
NAMED = "postfix/cleanup[8]: 4A1: message-id=<m1@x.example>"
QUEUED = "postfix/qmgr[9]: 4A1: from=<a@x.example>, size=700, nrcpt=1 (queue active)"
TAIL = "relay=mx[private/dovecot-lmtp], delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 Saved)"
SENT = f"postfix/lmtp[9]: 4A1: to=<bob@example.net>, {TAIL}"
REMOVED = "postfix/qmgr[9]: 4A1: removed"
JUNK = "dovecot: lmtp(bob@example.net)<1><s>: sieve: msgid=<m1@x.example>: stored mail into mailbox 'Junk'"
AMAVIS = (
    "amavis[5]: (1-1) Passed SPAM {RelayedTaggedInbound}, [192.0.2.1]:41234 [192.0.2.1] <a@x.example> -> "
    "<bob@example.net>, Queue-ID: 4A1, Message-ID: <m1@x.example>, mail_id: x, Hits: 9, size: 700, 9 ms"
)
RSPAMD = (
    "rspamd[5]: <8ae27d>; proxy; rspamd_task_write_log: id: <m1@x.example>, qid: <4A1>, ip: 192.0.2.1, "
    "from: <a@x.example>, (default: T (reject): [20.00/15.00] [X(1.00){}]), len: 7, time: 5ms"
)
SPAMD = (
    "spamd[6]: spamd: result: Y 12 - X scantime=1.0,size=700,user=vmail,uid=5000,required_score=5.0,"
    "rhost=::1,raddr=::1,rport=33770,mid=<m1@x.example>,autolearn=no"
)
REFUSED = (
    "postfix/cleanup[8]: 4A1: milter-reject: END-OF-MESSAGE from mail.example[192.0.2.1]: 5.7.1 Spam message "
    "rejected; from=<a@x.example> to=<bob@example.net> proto=ESMTP helo=<h>"
)
# A content filter takes it by SMTP and gives it back.
TO_FILTER = "relay=127.0.0.1[127.0.0.1]:10024, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 2.0.0 {})"
FILTERED = (
    f"postfix/smtp[9]: 4A1: to=<bob@example.net>, {TO_FILTER.format('from MTA: 250 Ok: queued as 4B2')}"
)
BACK = "postfix/smtpd[7]: 4B2: client=localhost[127.0.0.1]"
BACK_TOLD = f"{BACK}, orig_queue_id=4A1, orig_client=mail.example[192.0.2.1]"
NAMED_2, QUEUED_2, SENT_2, REMOVED_2 = (line.replace("4A1", "4B2") for line in (NAMED, QUEUED, SENT, REMOVED))
WAY = [CLIENT, NAMED, QUEUED, SENT, REMOVED]
RECORD = {
    "t": T - 0.2,
    "client": HIS,
    "sender": "A@X.example",
    "recipient": "Bob@example.net",
    "outcome": "accepted",
    "reason": "pool",
}


def ways(lines, host="mx1 ", step=0.0):
    """The messages of some lines, a second apart or at once."""
    reader = MailWays()
    found = []
    for at, line in enumerate(lines):
        text = line if line.startswith(("#", "lmtp(", "mx")) else host + line
        found += reader.read(text.encode("utf-8", "surrogateescape"), T + at * step)
    return [*found, *reader.rest()]


def told(lines, **record):
    """Whether the log tells of the record, and that it is spam: "", "told" or "spam"."""
    found = SpamJoin(ways(lines)).find(RECORD | record)
    return "" if found is None else "spam" if found.spam else "told"


PLACES = [
    # where the word of spam stands among the lines of a way
    ([*WAY[:3], JUNK, *WAY[3:]], "spam"),
    ([*WAY, JUNK], "spam"),
    ([*WAY[:2], RSPAMD, *WAY[2:]], "spam"),
    ([RSPAMD, *WAY], "spam"),
    ([*WAY[:2], RSPAMD.replace("rspamd[5]: ", "#5(normal) "), *WAY[2:]], "spam"),
    ([*WAY[:3], SPAMD, *WAY[3:]], "spam"),
    ([*WAY[:2], SPAMD, REFUSED], "spam"),
    ([*WAY[:2], REFUSED], "spam"),
    ([*WAY[:2], REFUSED.replace("Spam message", "Virus")], "told"),
    ([*WAY[:3], AMAVIS, *WAY[3:]], "spam"),
    (WAY, "told"),
    # Nothing is known of its end yet.
    (WAY[:3], ""),
    # Nor to whom it goes.
    ([*WAY[:3], AMAVIS], ""),
    ([*WAY[:4], AMAVIS], "spam"),
    ([JUNK, *WAY], "spam"),
    ([SPAMD, *WAY], "spam"),
    ([SPAMD.replace("m1@", "m2@"), JUNK.replace("m1@", "m2@"), *WAY], "told"),
    ([CLIENT, *WAY[2:], JUNK], "told"),
]


@pytest.mark.parametrize(("lines", "wanted"), PLACES)
def test_where_the_word_stands(lines, wanted):
    """It may come before the message is in the queue, or after it has left."""
    assert told(lines) == wanted


FILTERS = [
    [*WAY[:3], BACK_TOLD, NAMED_2, QUEUED_2, AMAVIS, FILTERED, REMOVED, SENT_2, REMOVED_2],
    [*WAY[:3], BACK, NAMED_2, QUEUED_2, AMAVIS, FILTERED, REMOVED, SENT_2, REMOVED_2],
    [*WAY[:3], BACK_TOLD, NAMED_2, QUEUED_2, FILTERED, REMOVED, JUNK, SENT_2, REMOVED_2],
    [*WAY[:3], BACK, NAMED_2, QUEUED_2, FILTERED, REMOVED, JUNK, SENT_2, REMOVED_2],
    [*WAY[:3], BACK, NAMED_2, QUEUED_2, JUNK, SENT_2, REMOVED_2, FILTERED, REMOVED],
    [
        *WAY[:3],
        BACK_TOLD,
        FILTERED,
        REMOVED,
        NAMED_2,
        RSPAMD.replace("4A1", "4B2"),
        QUEUED_2,
        SENT_2,
        REMOVED_2,
    ],
    # A filter that is run by pipe, and hands in what it gives back.
    [
        *WAY[:3],
        SPAMD,
        "postfix/pickup[1]: 4B2: uid=1 from=<a@x.example>",
        NAMED_2,
        SENT,
        REMOVED,
        SENT_2,
        REMOVED_2,
    ],
]


@pytest.mark.parametrize("lines", FILTERS)
def test_through_a_content_filter(lines):
    """The second queue id is of the same message, whether the filter says so or only its answer does."""
    assert told(lines) == "spam"
    clean = [line for line in lines if line not in (AMAVIS, JUNK, SPAMD) and not line.startswith("rspamd")]
    assert told(clean) == "told"


def test_not_before_the_filter_has_given_it_back():
    """Of a message that is in the filter nothing is told."""
    assert told([*WAY[:3], BACK_TOLD, NAMED_2, FILTERED, REMOVED]) == ""


def without(line, *brackets):
    for one in brackets:
        line = line.replace(one, one.strip("<>"))
    return line


EVADED = [
    # what a sender does lest it be told that his message is spam
    # A message id without brackets, or with more than one: each program writes it in its own way.
    [CLIENT, without(NAMED, "<m1@x.example>"), *WAY[2:4], SPAMD, WAY[4]],
    [CLIENT, NAMED + " (x)", *WAY[2:], JUNK],
    [CLIENT, without(NAMED, "<m1@x.example>"), *WAY[2:], without(JUNK, "<m1@x.example>")],
    [
        CLIENT,
        NAMED.replace("m1@x", "m1>,autolearn=@x"),
        *WAY[2:4],
        SPAMD.replace("m1@x.example", "m1"),
        REMOVED,
    ],
    # More message ids after it.
    [*WAY[:2], *(NAMED.replace("m1", f"n{i}") for i in range(99)), *WAY[2:], JUNK],
    # Other queue ids before it.
    [
        *WAY[:3],
        AMAVIS.replace("<a@", '<"' + "".join(f", Queue-ID: 4{i:02}," for i in range(20)) + '"@', 1),
        *WAY[3:],
    ],
    # A HELO that looks like what stands before it.
    [*WAY[:2], REFUSED.replace("helo=<h>", "helo=<; from=<b@x.example> to=<c@example.net> proto=SMTP>")],
]


@pytest.mark.parametrize("lines", EVADED)
def test_nobody_evades(lines):
    """What a sender chooses to say does not hide that his message is spam."""
    assert told(lines) == "spam"


def test_many_message_ids_are_bounded():
    """A message may have the field again and again; the first ones count."""
    (mail,) = ways([*WAY[:2], *(NAMED.replace("m1", f"n{i}") for i in range(999)), *WAY[2:]])
    assert len(mail.message_ids) == 16
    assert b"m1@x.example" in mail.message_ids


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (REFUSED[: REFUSED.index("5.7.1")], "; from=<> to=<"),
        (REFUSED[: REFUSED.index("5.7.1")], "; from=<"),
        (SENT[: SENT.index("bob")], ">, orig_to=<"),
        (SENT[: SENT.index("bob")], ">, orig_to=<>, relay="),
    ],
)
def test_long_lines(begin, again):
    """A line that a sender has made long is read in a time that grows with its length, not its cube."""
    assert told([*WAY[:4], begin + again * (10**6 // len(again)), REMOVED]) == "told"


OTHERS = [
    # a record that is not of this message
    {"client": "192.0.2.2"},
    {"recipient": "eve@example.net"},
    {"sender": "b@x.example"},
    {"t": T - 60},
    {"t": T + 60},
    {"outcome": "greylisted"},
    {"reason": "known"},
    {"reason": ["pool"]},
    {"client": None},
    {"sender": 7},
    {"t": "now"},
]


@pytest.mark.parametrize("record", OTHERS)
def test_other_records(record):
    """Client, recipient and time must be those of the message; and it was let in early."""
    lines = [*WAY[:3], AMAVIS, *WAY[3:]]
    assert told(lines) == "spam"
    assert told(lines, **record) == ""


def test_aliases_and_rewritten_senders():
    """The recipient as he was named counts, and a sender that SRS has rewritten is no hindrance."""
    sent = SENT.replace("to=<bob@example.net>", "to=<bob@inner.example>, orig_to=<info@example.net>")
    junk = JUNK.replace("bob@example.net", "bob@inner.example")
    lines = [CLIENT, NAMED, QUEUED.replace("a@x", "SRS0=h=t=x.example=a@own"), sent, junk, REMOVED]
    assert told(lines, recipient="info@example.net") == "spam"
    assert told(lines, recipient="eve@example.net") == ""


def test_a_folder_is_one_recipients():
    """What one has in his folder for spam is none for the other; names of mailboxes may be local parts."""
    eve = SENT.replace("bob", "eve")
    lines = [*WAY[:3], JUNK.replace("bob@example.net", "bob"), SENT, eve, REMOVED]
    assert (told(lines), told(lines, recipient="eve@example.net")) == ("spam", "told")
    # One recipient, whose mailbox has another name.
    assert told([*WAY[:3], JUNK.replace("bob@example.net", "u1007"), SENT, REMOVED]) == "spam"


def second(lines, to="eve@example.net"):
    """The same lines of another message, of the same client and with the same message id."""
    return [line.replace("4A1", "4C3").replace("bob@example.net", to) for line in lines]


def test_one_message_id_twice():
    """A mailing to many in one message each: each folder counts for its own, and each scan for one."""
    lines = [*WAY[:3], *second(WAY[:3]), JUNK, SENT, second([SENT])[0], REMOVED, second([REMOVED])[0]]
    assert (told(lines), told(lines, recipient="eve@example.net")) == ("spam", "told")
    lines = [*WAY[:3], *second(WAY[:3]), SPAMD, SENT, second([SENT])[0], REMOVED, second([REMOVED])[0]]
    assert sorted((told(lines), told(lines, recipient="eve@example.net"))) == ["spam", "told"]
    lines[6:6] = [SPAMD]
    assert (told(lines), told(lines, recipient="eve@example.net")) == ("spam", "spam")


def test_the_nearest_of_several():
    """Two messages of one sender to one recipient: a verdict is of the one that began with it."""
    later = [line.replace("4A1", "4C3") for line in WAY]
    reader = MailWays()
    found = []
    for moment, lines in ((T, WAY), (T + 5, [*later[:3], AMAVIS.replace("4A1", "4C3"), *later[3:]])):
        for line in lines:
            found += reader.read(f"mx1 {line}".encode(), moment)
    found += reader.rest()
    wanted = {-0.3: False, 0.9: False, 4.6: True, 5.2: True}
    assert {at: SpamJoin(found).find(RECORD | {"t": T + at}).spam for at in wanted} == wanted


def test_each_is_of_one_verdict():
    """A transaction that came to nothing beside it, by the same client, is not told of."""
    join = SpamJoin(ways(WAY))
    assert [join.find(RECORD | {"t": T + at}) is not None for at in (-0.2, 0.4)] == [True, False]


def test_the_same_lines_twice():
    """Two files with the same lines make no two messages."""
    lines = [*WAY[:3], AMAVIS, *WAY[3:]]
    assert len(ways([*lines, *lines])) == 1
    assert len(ways([line for line in lines for _ in range(2)])) == 1


FORGED = [
    # Another's queue id in an address or a message id: it is not of this client.
    AMAVIS.replace("<a@x", '<", Queue-ID: 4C3, "@x').replace("Queue-ID: 4A1, ", ""),
    AMAVIS.replace("192.0.2.1", "198.51.100.1").replace("4A1", "4C3"),
    RSPAMD.replace("192.0.2.1", "198.51.100.1").replace("4A1", "4C3"),
    # In a line of Postfix's.
    CLIENT.replace("4A1", "4D4") + f", sasl_method=PLAIN, sasl_username=x, sasl_sender={AMAVIS}",
    f"postfix/cleanup[8]: 4D4: message-id=<{REFUSED.replace('4A1', '4C3')}>",
    f"postfix/smtpd[8]: warning: non-SMTP command from x[1.2.3.4]: {AMAVIS.replace('4A1', '4C3')}",
    f"postfix/smtp[9]: 4D4: to=<x@example.net>, {TO_FILTER.format('queued as 4C3')}",
]


@pytest.mark.parametrize("forged", FORGED)
def test_nobody_speaks_for_another_message(forged):
    """What a client says, to us or in another message, makes no spam of somebody's message."""
    other = [
        line.replace("4A1", "4C3").replace("192.0.2.1", "203.0.113.9").replace("m1@", "m9@") for line in WAY
    ]
    lines = [*other[:3], *WAY[:3], forged, *other[3:], *WAY[3:]]
    assert told(lines, client="203.0.113.9") == "told"


def test_a_queue_id_of_two_hosts():
    """Each host has its own messages, though their ids are the same."""
    lines = [f"mx1 {WAY[0]}", f"mx2 {WAY[0].replace('192.0.2.1', '192.0.2.2')}"]
    lines += [f"{mx} {line}" for line in (QUEUED, SENT) for mx in ("mx1", "mx2")]
    lines += [f"mx2 {AMAVIS.replace('192.0.2.1', '192.0.2.2')}", f"mx1 {REMOVED}", f"mx2 {REMOVED}"]
    assert (told(lines), told(lines, client="192.0.2.2")) == ("told", "spam")


def test_bounds(monkeypatch):
    """However many messages begin and never end, few are held; who is spam already is not forgotten."""
    monkeypatch.setattr(mailways, "MOST_WAITING", 10)
    lines = [CLIENT, QUEUED, SENT, AMAVIS]
    lines += [f"postfix/smtpd[7]: 4E{number}: client=x[192.0.2.9]" for number in range(100)]
    reader = MailWays()
    found = [mail for line in lines for mail in reader.read(f"mx1 {line}".encode(), T)]
    assert [mail.spam for mail in found] == [True]
    assert len(reader._mails) == 10
    assert len(reader._by_id) == 20


@given(st.lists(st.sampled_from([*WAY, *FILTERS[0], *FILTERS[1], JUNK, SPAMD, RSPAMD, REFUSED]), max_size=30))
def test_any_order_does_no_harm(lines):
    """Lines in any order and number: each message is told of at most once for each time it begins."""
    found = ways(lines, step=20.0)
    assert len(found) <= sum("client=" in line for line in lines)
    SpamJoin(found).find(RECORD)
