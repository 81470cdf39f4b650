"""What lines of a mail log count for; with real lines in tests/mta/test_report_postfix.py."""

from __future__ import annotations

import random
import re
import time

import pytest

from hybridgrey.report.logtime import Clock
from hybridgrey.report.maillog import MOST_WAITING, SERIES, Reader

AT = 1_795_000_020  # of STAMP
STAMP = "2026-11-18T11:07:00Z"
OURS = [re.compile(rb"Greylisted, please try again in \d+ seconds")]
GREY = "450 4.2.0 <b@example.net>: Recipient address rejected: Greylisted, see http://postgrey.example/help/x"
SMTPD = "mx postfix/smtpd[12]: "
REJECT = SMTPD + "NOQUEUE: reject: RCPT from mail.example.org[192.0.2.1]: "
TAIL = "; from=<a@example.org> to=<b@example.net> proto=ESMTP helo=<x>"


def counted(*lines, own=OURS):
    """The counts of a log of these lines, those that are not 0."""
    reader = Reader(own)
    reader.read([f"{STAMP} {line}\n".encode() for line in lines], Clock(AT))
    tally = reader.tally
    return {name: total for name in SERIES if (total := sum(tally.bins.counts(name).values()))}


def message(queue_id, client="mail.example.org[192.0.2.1]", program="postfix/smtpd", sender="a@example.org"):
    """What Postfix logs of a message that it takes."""
    return (
        f"mx {program}[12]: {queue_id}: client={client}",
        f"mx postfix/cleanup[13]: {queue_id}: message-id=<x@example.org>",
        f"mx postfix/qmgr[14]: {queue_id}: from=<{sender}>, size=414, nrcpt=2 (queue active)",
        f"mx postfix/qmgr[14]: {queue_id}: removed",
    )


CLEANUP = "mx postfix/cleanup[1]: 3A: "
POSTSCREEN = "mx postfix/postscreen[1]: NOQUEUE: reject: RCPT from [192.0.2.1]:4711: "
AMAVIS = "mx amavis[9]: (00009-01) "
ACTIVE = "mx postfix/qmgr[14]: 3A: from=<a@example.org>, size=414, nrcpt=1 (queue active)"

POLICY = REJECT + "450 4.7.1 <b@example.net>: Recipient address rejected: "
OTHERS = [
    "Delayed by Postgrey",
    "Grey listed, wait",
    "Greylisted for 5 minutes",
    "Service temporarily unavailable, please try later",  # gld
    "Policy Rejection- Please try later.",  # policyd
    "Greylisting in effect, please come back later",  # cbpolicyd
    "Please try again later.",  # gross
    "Greylisted by greyfix 0.4.0, try again in 60 seconds",
    "You have been greylisted by sqlgrey, see http://x.example/",
    "temporarily graylisted",
]

ONE = [
    # accepted: once a message, however often it is tried
    (message("3A"), {"accepted": 1}),
    (message("4XfKqz1LzZz9sWX"), {"accepted": 1}),
    ((*message("3A"), ACTIVE), {"accepted": 1}),
    ((*message("3A"), *message("3A")), {"accepted": 2}),
    (message("3A", program="postfix/submission/smtpd"), {"accepted": 1}),
    (message("3A", program="postfix-mx2/smtpd"), {"accepted": 1}),
    (message("3A", client="unknown[2001:db8::1]"), {"accepted": 1}),
    (message("3A", client="unknown[192.0.2.1], sasl_method=PLAIN, sasl_username=u"), {"accepted": 1}),
    (message("3A", sender='"x> (queue active)"@example.org'), {"accepted": 1}),
    ((SMTPD + "proxy-accept: END-OF-MESSAGE: 250 ok" + TAIL,), {"accepted": 1}),
    ((message("3A")[0], CLEANUP + "hold: header Received: x from y[192.0.2.1]; x"), {"accepted": 1}),
    # not: what was not handed over, comes from here, or from a filter behind
    ((message("3A")[0],), {}),
    ((ACTIVE,), {}),
    (("mx postfix/pickup[1]: 3A: uid=0 from=<root>", ACTIVE), {}),
    (message("3A", client="localhost[127.0.0.1]"), {}),
    (message("3A", client="localhost[::1]"), {}),
    (message("3A", client="unknown[192.0.2.9], orig_queue_id=3B, orig_client=x[192.0.2.1]"), {}),
    ((SMTPD + "NOQUEUE: client=mail.example.org[192.0.2.1]",), {}),
    # rejected
    (
        (REJECT + "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen" + TAIL,),
        {"rejected": 1},
    ),
    ((REJECT.replace("reject", "milter-reject") + "554 5.7.1 blocked" + TAIL,), {"rejected": 1}),
    ((REJECT.replace("NOQUEUE", "3A") + "550 5.1.1 <b@example.net>: unknown" + TAIL,), {"rejected": 1}),
    (
        (REJECT.replace("RCPT", "CONNECT") + "554 5.7.1 <x>: Client host rejected; proto=SMTP",),
        {"rejected": 1},
    ),
    ((REJECT.replace("192.0.2.1", "2001:db8::1") + "550 no; from=<a> to=<b> proto=SMTP",), {"rejected": 1}),
    ((SMTPD + "proxy-reject: END-OF-MESSAGE: 550 5.7.1 spam" + TAIL,), {"rejected": 1}),
    (
        (
            POSTSCREEN + "550 5.7.1 Service unavailable;"
            " client [192.0.2.1] blocked using zen.spamhaus.org; from=<a>, to=<b>, proto=ESMTP, helo=<x>",
        ),
        {"rejected": 1},
    ),
    ((CLEANUP + "milter-reject: END-OF-MESSAGE from x[192.0.2.1]: 5.7.1 spam" + TAIL,), {"rejected": 1}),
    ((CLEANUP + "reject: header Subject: x from y[192.0.2.1]" + TAIL + ": 5.7.1 no",), {"rejected": 1}),
    # greylisted
    ((REJECT + GREY + TAIL,), {"greylisted": 1}),
    (
        (REJECT + "450 4.7.1 <b@x>: Recipient address rejected: Greylisted for 5 minutes" + TAIL,),
        {"greylisted": 1},
    ),
    ((REJECT + "451 4.7.1 Greylisting in action, please come back in 00:05:00" + TAIL,), {"greylisted": 1}),
    ((REJECT + "450 4.2.0 Graylisted" + TAIL,), {"greylisted": 1}),
    ((REJECT + "450 4.2.0 Greylisted, please try again in 287 seconds" + TAIL,), {"greylisted": 1}),
    (
        (CLEANUP + "milter-reject: END-OF-MESSAGE from x[192.0.2.1]: 4.7.1 Try again later" + TAIL,),
        {"greylisted": 1},
    ),
    (
        (POSTSCREEN + "450 4.3.2 Service currently unavailable; from=<a>, to=<b>, proto=ESMTP, helo=<x>",),
        {"greylisted": 1},
    ),
    # greylisted by others, in their own words
    *(((POLICY + text + TAIL,), {"greylisted": 1}) for text in OTHERS),
    ((POLICY + "Server configuration problem; try again later" + TAIL,), {"deferred": 1}),
    ((REJECT + "450 4.7.1 <b@postgrey.example>: Recipient address rejected: later" + TAIL,), {"deferred": 1}),
    # put off for other reasons, whatever the client calls itself
    (
        (REJECT + "450 4.1.8 <greylisted@example.org>: Sender address rejected: Domain not found" + TAIL,),
        {"deferred": 1},
    ),
    (
        (REJECT + "450 4.7.1 <b@x>: try later; from=<Greylisted@x> to=<b> proto=ESMTP helo=<greylisted>",),
        {"deferred": 1},
    ),
    ((REJECT + "450 4.7.1 <Greylisted, please try again in 3 seconds@x>: no" + TAIL,), {"deferred": 1}),
    ((REJECT + "450 4.3.2 Service currently unavailable" + TAIL,), {"deferred": 1}),
    # spam: spamd says it twice
    (
        (
            "mx spamd[7]: spamd: identified spam (15.2/5.0) for u:113 in 1.3 seconds, 4321 bytes.",
            "mx spamd[7]: spamd: result: Y 15 - BAYES_99 scantime=1.3,size=4321,user=u,mid=<x@y>",
        ),
        {"spam": 1},
    ),
    (
        ("mx spamd[7]: spamd: result: Y 15 - BAYES_99 scantime=1.3", "mx spamd[7]: spamd: result: Y 9 - A"),
        {"spam": 2},
    ),
    (
        (
            "mx spamd[7]: identified spam (11.0/4.0) for nobody:65534 in 21.9 seconds, 922 bytes.",
            "mx spamd[8]: identified spam (11.0/4.0) for nobody:65534 in 21.9 seconds, 922 bytes.",
            "mx spamd[8]: result: Y 11 - A",
            "mx spamd[7]: result: Y 11 - A",
        ),
        {"spam": 2},
    ),
    (("mx spampd[7]: identified spam <x@y> (15.2/5.0) from <a> for <b> in 0.4s, 1234 bytes.",), {"spam": 1}),
    (
        (
            "mx spamd[7]: spamd: clean message (-1.9/5.0) for u:113 in 1.3 seconds, 4321 bytes.",
            "mx spamd[7]: spamd: result: . -1 - BAYES_00 scantime=1.3,size=4321,user=u,mid=<result: Y 1@x>",
        ),
        {},
    ),
    ((AMAVIS + "Passed SPAM {RelayedTaggedInbound}, [192.0.2.1]:1 <a> -> <b>, Hits: 15",), {"spam": 1}),
    (("mx amavis[9]: (00009-01-2) Blocked SPAM {DiscardedInbound,Quarantined}, <a> -> <b>",), {"spam": 1}),
    ((AMAVIS + "Passed SPAMMY {RelayedTaggedInbound}, <a> -> <b>",), {"spam": 1}),
    ((AMAVIS + "Passed CLEAN {RelayedInbound}, <a> -> <b>, Message-ID: <Passed SPAM>",), {}),
    # nobody's
    ((CLEANUP + "message-id=<identified spam (1/1) reject: x result: Y >",), {}),
    (("mx postfix/smtp[1]: 3A: to=<b>, status=bounced (host x said: 554 reject: RCPT from x: 554 no)",), {}),
    (("mx dovecot: lda: identified spam (15.2/5.0)",), {}),
    ((SMTPD + "NOQUEUE: reject_warning: RCPT from x[192.0.2.1]: 554 5.7.1 no" + TAIL,), {}),
    ((SMTPD + "NOQUEUE: discard: RCPT from x[192.0.2.1]: <b>: no" + TAIL,), {}),
    (("mx postfix/postscreen[1]: NOQUEUE: reject: CONNECT from [192.0.2.1]:1: all server ports busy",), {}),
]


@pytest.mark.parametrize(("lines", "wanted"), ONE, ids=lambda value: str(value)[:60])
def test_counts(lines, wanted):
    """Each line counts for what it says of the mail, and for nothing a client says."""
    assert counted(*lines) == wanted


def test_texts_that_are_given():
    """What else is greylisting can be said, as regular expressions; what a client says stays out of it."""
    line = POLICY + "Come back tomorrow, dear" + TAIL
    assert counted(line) == {"deferred": 1}
    reader = Reader(greylist_texts=[re.compile(rb"come back", re.IGNORECASE)])
    spoofed = REJECT + "450 4.7.1 <come back@x>: Recipient address rejected: no" + TAIL
    reader.read([f"{STAMP} {text}\n".encode() for text in (line, spoofed)], Clock(AT))
    totals = {name: sum(reader.tally.bins.counts(name).values()) for name in ("greylisted", "deferred")}
    assert totals == {"greylisted": 1, "deferred": 1}


BARE = f"postfix/smtpd[12]: NOQUEUE: reject: RCPT from x[192.0.2.1]: {GREY}{TAIL}"
CONTAINERS = [
    # Kubernetes and containerd, docker logs -t, compose (with colours), kubectl --prefix, stern, journalctl
    "2026-11-18T11:07:00.123456789Z stdout F Nov 18 11:07:00 mx {}",
    "2026-11-18T11:07:00.123456789Z stderr F {}",
    "2026-11-18T11:07:00.123456789Z Nov 18 11:07:00 mx {}",
    "mail_1  | Nov 18 11:07:00 mx {}",
    "mail-1  | 2026-11-18T11:07:00.123456789Z Nov 18 11:07:00 mx {}",
    "\x1b[36mmail-1  |\x1b[0m Nov 18 11:07:00 mx {}",
    "mailserver | 2026-11-18T11:07:00.123456+00:00 mx {}",
    "[pod/mail-0/postfix] Nov 18 11:07:00 mx {}",
    "mail-0 postfix 2026-11-18T11:07:00+00:00 mx {}",
    '{{"log":"Nov 18 11:07:00 mx {}\\n","stream":"stdout","time":"2026-11-18T11:07:00.123456789Z"}}',
    "2026-11-18T11:07:00+0000 mx {}",
    "2026-11-18T11:07:00.123456+0000 mx {}",
    "Wed 2026-11-18 11:07:00 UTC mx {}",
    "2026-11-18T11:07:00.000000+00:00 INFO    {}",
    "Nov 18 11:07:00 {}",
]


@pytest.mark.parametrize("form", CONTAINERS)
def test_lines_of_containers(form):
    """What a container's runtime puts before a line is taken off; its time is the line's."""
    reader = Reader()
    reader.read([form.format(BARE).encode()], Clock(AT))
    assert list(reader.tally.bins.counts("greylisted").values()) == [1]


# As a real Sendmail 8.17 wrote them, with names of their own; the others after its sources.
SENDMAIL = [
    # reject=554 at RCPT, and the message without recipients
    "sendmail[15]: 6AiZG15: Milter: to=<b@example.net>, reject=554 5.7.1 Service unavailable; client blocked",
    "sendmail[15]: 6AiZG15: from=<a@example.org>, size=0, class=0, nrcpts=0, daemon=MTA, relay=x"
    " [192.0.2.66]",
    # a high log level says it twice
    "sm-mta[17]: 6Ai7L17: milter=hybridgrey, action=rcpt, reject=450 4.2.0 Greylisted, please try again"
    " in 2 seconds",
    "sm-mta[17]: 6Ai7L17: Milter: to=<b@example.net>, reject=450 4.2.0 Greylisted, please try again in"
    " 2 seconds",
    "sm-mta[88]: 6A2tQ88: <b@mx.example.test>... User unknown",
    "sm-mta[88]: 6A2tQ88: ruleset=check_rcpt, arg1=<x@other.example>, relay=x [192.0.2.66], reject=550 5.7.1"
    " <x@other.example>... Relaying denied. Proper authentication required.",
    "sm-mta[89]: 6A2tQ89: ruleset=check_rcpt, arg1=<b@example.net>, relay=x [192.0.2.66], reject=451 4.7.1"
    " Greylisting in action, please come back later",
    "sm-mta[89]: 6A2tQ89: ruleset=check_relay, arg1=x, arg2=192.0.2.66, relay=x [192.0.2.66],"
    " reject=553 5.3.0 no",
    "sm-mta[90]: 6A2tQ90: ruleset=check_mail, arg1=<greylisted@no.example>, relay=[192.0.2.66],"
    " reject=451 4.1.8"
    " Domain of sender address does not resolve",
    # taken, and given on to two
    "sm-mta[97]: 6A21097: from=<a@example.org>, size=64, class=0, nrcpts=1, msgid=<1@mx>, proto=ESMTP,"
    " daemon=MTA,"
    " relay=mail.example.org [198.51.100.1]",
    "sm-mta[97]: 6A21097: Milter accept: message",
    "sm-mta[99]: 6A21097: to=<b@example.net>, delay=00:00:00, xdelay=00:00:00, mailer=relay, pri=30064,"
    " relay=[127.0.0.1] [127.0.0.1], dsn=2.0.0, stat=Sent (ok)",
    "sm-mta[99]: 6A21097: to=<c@example.net>, delay=00:00:09, mailer=relay, dsn=4.0.0, stat=Deferred",
    "sm-mta[91]: 6A21091: from=<>, size=64, class=0, nrcpts=2, daemon=MTA6, relay=x"
    " [IPv6:2001:db8:0:0:0:0:0:1]",
    "sm-mta[92]: 6A21091: to=<b@example.net>,<c@example.net>, delay=00:00:00, mailer=local, dsn=2.0.0,"
    " stat=Sent",
    # refused at its end
    "sm-mta[93]: 6A21093: from=<a@example.org>, size=64, class=0, nrcpts=1, daemon=MTA, relay=x"
    " [198.51.100.1]",
    "sm-mta[93]: 6A21093: Milter: data, reject=550 5.7.1 spam",
    "sm-mta[93]: 6A21093: to=<b@example.net>, delay=00:00:00, pri=30064, stat=spam",
    # the machine's own
    "sm-mta[94]: 6A21094: from=root, size=64, class=0, nrcpts=1, daemon=MTA, relay=localhost [127.0.0.1]",
    "sm-mta[94]: 6A21094: to=<b@example.net>, delay=00:00:00, mailer=local, stat=Sent",
    "sendmail[95]: 6A21095: from=root, size=64, class=0, nrcpts=1, msgid=<x>, relay=root@localhost",
    "sendmail[95]: 6A21095: to=b, ctladdr=root (0/0), mailer=relay, relay=[127.0.0.1] [127.0.0.1], stat=Sent",
]


def test_sendmail():
    """Sendmail's own lines: refusals by ruleset and milter, messages taken once, its own mail left out."""
    lines = [f"mx {line}" for line in SENDMAIL]
    assert counted(*lines) == {"accepted": 2, "rejected": 5, "greylisted": 2, "deferred": 1}
    reader = Reader(OURS)
    reader.read([f"{STAMP} {line}".encode() for line in lines], Clock(AT))
    assert reader.tally.own_count == 1


def test_rfc_5424():
    """A file in RFC 5424's form is read too."""
    line = (
        f"<22>1 {STAMP} mx postfix/smtpd 12 - - NOQUEUE: reject: RCPT from x[192.0.2.1]: 554 5.7.1 no{TAIL}"
    )
    reader = Reader()
    reader.read([line.encode()], Clock(AT))
    assert sum(reader.tally.bins.counts("rejected").values()) == 1


def replies(*minutes, text="450 4.2.0 Greylisted, please try again in 300 seconds"):
    """A tally of a log of an hour that has replies of ours in these minutes."""
    reader = Reader(OURS)
    lines = [(0, GREY), *((minute, text) for minute in minutes), (59, GREY)]
    reader.read((f"2026-11-18T10:{m:02}:00Z {REJECT}{text}{TAIL}".encode() for m, text in lines), Clock(AT))
    assert reader.tally.spans == [(AT - 67 * 60, AT - 7 * 60)]
    return reader.tally


def test_when_the_filter_began():
    """The first greylisting in our words is the moment, after a silence that is long for this log."""
    assert replies(30, 31, 32).began == AT - 37 * 60
    assert replies(30).began == AT - 37 * 60
    assert replies(5, 15, 25, 35, 45, 55).began is None, "it was on before the log begins"
    assert replies().began is None
    assert replies(30, text=GREY).began is None, "it is another's greylisting"
    both = replies(30, 31)
    both.merge(replies(20, 21))
    assert (both.own, both.own_count) == ([AT - 47 * 60, AT - 36 * 60], 4)


def test_a_text_of_the_admins_own():
    """A greylisting text without the word is known from the configuration."""
    line = REJECT + "450 4.7.1 Come back soon" + TAIL
    assert counted(line) == {"deferred": 1}
    assert counted(line, own=[re.compile(rb"Come back soon")]) == {"greylisted": 1}


def test_since_and_until():
    """Lines outside of the time that is asked for do not count."""
    reader = Reader(since=AT, until=AT + 60)
    lines = (f"2026-11-18T11:{m}:30Z {REJECT}554 5.7.1 no{TAIL}".encode() for m in ("06", "07", "08"))
    reader.read(lines, Clock(AT))
    assert reader.tally.bins.counts("rejected") == {AT: 1}


def test_lines_without_a_time_are_told():
    """Lines of mail whose time cannot be are counted apart; what is no line of mail is not."""
    reader = Reader()
    lines = [f"{when} {REJECT}554 5.7.1 no{TAIL}".encode() for when in (STAMP, "2036-01-01T00:00:00Z", "x")]
    reader.read([*lines, b"\xff\xfe\x00", b"", b"noise " * 1000], Clock(AT))
    assert (reader.tally.lines, reader.tally.counted, reader.tally.undated) == (6, 1, 2)


def test_a_long_log_is_not_taken_in_before_its_years_are_known():
    """A log that was begun a year too late says so and leaves no count; read again it is right."""
    days = [f"{month} 17" for month in ("Jan", "Apr", "Jul", "Oct")]
    lines = [f"{day} 10:00:00 {REJECT}554 5.7.1 no{TAIL}".encode() for day in [*days, *days]]
    reader = Reader()
    excess = reader.read(lines, Clock(AT))
    assert (excess, reader.tally.lines) == (1, 0)
    assert reader.read(lines, Clock(AT, excess)) == 0
    assert len(reader.tally.bins.counts("rejected")) == 8
    assert reader.tally.spans[0][1] < AT


def test_memory_is_bounded():
    """Queue ids that never come to an end are let go, the oldest first."""
    reader = Reader()
    clock = Clock(AT)
    reader.read((f"{STAMP} {message(f'{n:X}')[0]}".encode() for n in range(MOST_WAITING + 1000)), clock)
    assert len(reader._waiting) == MOST_WAITING
    reader.read([f"{STAMP} {message(f'{n:X}')[2]}".encode() for n in (0, MOST_WAITING + 999)], clock)
    assert sum(reader.tally.bins.counts("accepted").values()) == 1


def test_a_line_of_opening_brackets():
    """A line that never closes what it opens is read once, not once for each bracket."""
    line = f"{STAMP} {SMTPD}NOQUEUE: reject: RCPT from x[192.0.2.1]: 450 4.2.0 <b>: Greylisted {'<' * 2**20}"
    reader = Reader()
    begin = time.monotonic()
    reader.read([line.encode()], Clock(AT))
    assert sum(reader.tally.bins.counts("greylisted").values()) == 1
    assert time.monotonic() - begin < 30


def test_noise():
    """Lines cut, joined and mangled at random raise nothing."""
    chance = random.Random(6)
    good = [f"{STAMP} {line}".encode() for line in (*(line for lines, _ in ONE for line in lines), *SENDMAIL)]
    good += [form.format(BARE).encode() for form in CONTAINERS]
    reader = Reader(OURS)
    clock = Clock(AT)

    def mangled():
        for _ in range(30_000):
            line = bytearray(chance.choice(good))
            for _ in range(chance.randrange(4)):
                line[chance.randrange(len(line))] = chance.randrange(256)
            if chance.random() < 0.3:
                line = line[: chance.randrange(len(line))] + chance.choice(good)
            yield bytes(line)

    reader.read(mangled(), clock)
    assert reader.tally.lines == 30_000
