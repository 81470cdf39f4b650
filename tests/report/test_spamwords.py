"""What programs behind the filter say of spam in a mail log: tables of their lines, and of forged ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridgrey.report.spamwords import MESSAGE_ID_MAX, Spam, compared, folders, spam

CLIENT, QID = "192.0.2.1", "4XyZ0d1kHcz2Kp"
AMAVIS = (
    "(01234-05) Passed SPAM {RelayedTaggedInbound,Quarantined}, [192.0.2.1]:41234 [198.51.100.9] "
    "<a@spam.example> -> <bob@example.net>,<eve@example.net>, quarantine: s/spam-9.gz, "
    "Queue-ID: 4XyZ0d1kHcz2Kp, Message-ID: <m1@spam.example>, mail_id: sPAm9, "
    "Hits: 12.3, size: 2048, queued_as: 4XyZ0f, 1412 ms"
)
RSPAMD = (
    "<8ae27d>; proxy; rspamd_task_write_log: id: <m1@spam.example>, qid: <4XyZ0d1kHcz2Kp>, ip: 192.0.2.1, "
    "from: <a@spam.example>, (default: F (add header): [8.50/15.00] [BAYES_SPAM(4.50){100.00%;},"
    "ASN(0.00){asn:1;}]), len: 1234, time: 50.123ms, dns req: 4, digest: <0123>, "
    "rcpts: <bob@example.net>, mime_rcpts: <bob@example.net>"
)
SPAMD = (
    "spamd: result: Y 12 - BAYES_99,HTML_MESSAGE scantime=2.4,size=3235,user=vmail,uid=5000,"
    "required_score=5.0,rhost=::1,raddr=::1,rport=33770,mid=<m1@spam.example>,autolearn=no autolearn_force=no"
)
LMTP = "lmtp(bob@example.net)<2799492><N2hLF3ffMGaEtyoA0J78UA>: "
STORED = f"{LMTP}sieve: msgid=<m1@spam.example>: stored mail into mailbox 'Junk'"
REFUSED = (
    "4XyZ0d1kHcz2Kp: milter-reject: END-OF-MESSAGE from mail.spam.example[192.0.2.1]: 5.7.1 {}; "
    "from=<a@spam.example> to=<bob@example.net> proto=ESMTP helo=<mail.spam.example>"
)
CHECKED = (
    "4XyZ0d1kHcz2Kp: {}: header {} from mail.spam.example[192.0.2.1]; from=<a@spam.example> "
    "to=<bob@example.net> proto=ESMTP helo=<mail.spam.example>: {}"
)
BY_ID, BY_NAME = ((QID, CLIENT),), ((QID, ""),)
BY_MESSAGE = "m1@spam.example"

LINES = [
    # program, what it says; queue ids with clients, message id, mailbox
    ("amavis", AMAVIS, BY_ID, "", ""),
    ("amavis", AMAVIS.replace("Passed SPAM", "Blocked SPAM"), BY_ID, "", ""),
    ("amavis", AMAVIS.replace("Passed SPAM {", "Passed SPAMMY {"), BY_ID, "", ""),
    ("amavis", AMAVIS.replace(" {RelayedTaggedInbound,Quarantined},", ","), BY_ID, "", ""),
    ("amavis", AMAVIS.replace("}, [", "}, MYNETS LOCAL ["), BY_ID, "", ""),
    ("amavis", AMAVIS.replace("192.0.2.1]", "2001:db8::1]"), ((QID, "2001:db8::1"),), "", ""),
    ("amavis", AMAVIS.replace("Queue-ID: 4XyZ0d1kHcz2Kp, ", ""), (), BY_MESSAGE, ""),
    ("amavis", AMAVIS.replace("Passed SPAM", "Passed CLEAN"), None, "", ""),
    ("rspamd", RSPAMD, BY_ID, "", ""),
    ("rspamd", f"#4493(rspamd_proxy) {RSPAMD}", BY_ID, "", ""),
    ("rspamd", RSPAMD.replace("F (add header)", "T (reject)"), BY_ID, "", ""),
    ("rspamd", RSPAMD.replace("F (add header)", "T (add header)"), BY_ID, "", ""),
    ("rspamd", RSPAMD.replace("F (add header)", "S (rewrite subject)"), BY_ID, "", ""),
    ("rspamd", RSPAMD.replace("F (add header)", "F (no action)"), None, "", ""),
    ("rspamd", RSPAMD.replace("F (add header)", "F (greylist)"), None, "", ""),
    ("rspamd", RSPAMD.replace("F (add header)", "F (soft reject)"), None, "", ""),
    ("spamd", SPAMD, (), BY_MESSAGE, ""),
    ("spamd", SPAMD.removeprefix("spamd: ").replace(",autolearn", ",bayes=1,autolearn"), (), BY_MESSAGE, ""),
    ("spamd", SPAMD.replace("rport=33770", "rport=/run/spamd.sock"), (), BY_MESSAGE, ""),
    ("spamd", SPAMD.replace("result: Y", "result: ."), None, "", ""),
    ("spamd", "spamd: identified spam (12.3/5.0) for vmail:5000 in 2.4 seconds, 3235 bytes.", None, "", ""),
    ("dovecot", STORED, (), BY_MESSAGE, "bob@example.net"),
    ("dovecot", STORED.replace("'Junk'", "'INBOX.Spam'"), (), BY_MESSAGE, "bob@example.net"),
    ("dovecot", STORED.replace("'Junk'", "'Junk E-mail'"), (), BY_MESSAGE, "bob@example.net"),
    ("dovecot", STORED.replace("stored", "fileinto action: stored"), (), BY_MESSAGE, "bob@example.net"),
    ("dovecot", STORED.replace("sieve: ", "Info: sieve: "), (), BY_MESSAGE, "bob@example.net"),
    (
        "dovecot",
        "lmtp(bob@example.net)<9><x>: sieve: fileinto action: msgid=<m1@spam.example>: "
        "stored mail into mailbox 'Junk'",
        (),
        BY_MESSAGE,
        "bob@example.net",
    ),
    (
        "dovecot",
        "lmtp(1235, Bob): xYz1: sieve: msgid=<m1@spam.example>: stored mail into mailbox 'Junk'",
        (),
        BY_MESSAGE,
        "bob",
    ),
    ("dovecot", "lda(bob): msgid=<m1@spam.example>: saved mail to Junk", (), BY_MESSAGE, "bob"),
    ("dovecot", STORED.replace("'Junk'", "'INBOX'"), None, "", ""),
    ("dovecot", STORED.replace("'Junk'", "'Junkyard'"), None, "", ""),
    ("dovecot", f"{LMTP}sieve: msgid=<m1@spam.example>: discarded message", None, "", ""),
    ("cleanup", REFUSED.format("Blocked by SpamAssassin"), BY_NAME, "", ""),
    ("cleanup", REFUSED.format("Spam message rejected"), BY_NAME, "", ""),
    ("cleanup", REFUSED.format("Spam message rejected").replace("5.7.1", "4.7.1"), BY_NAME, "", ""),
    ("cleanup", REFUSED.format("Message has a virus"), None, "", ""),
    ("cleanup", CHECKED.format("reject", "X-Spam-Flag: YES", "5.7.1 no"), BY_NAME, "", ""),
    ("cleanup", CHECKED.format("discard", "X-Spam-Status: Yes, score=9", "x"), BY_NAME, "", ""),
    ("cleanup", CHECKED.format("reject", "Subject: cheap", "5.7.1 we want no spam"), BY_NAME, "", ""),
    ("cleanup", CHECKED.format("reject", "Subject: cheap spam", "5.7.1 too cheap"), None, "", ""),
    ("cleanup", CHECKED.format("warning", "X-Spam-Flag: YES", ""), None, "", ""),
    ("smtpd", "connect from mail.spam.example[192.0.2.1]", None, "", ""),
]


@pytest.mark.parametrize(("program", "text", "names", "message", "user"), LINES)
def test_lines(program, text, names, message, user):
    """Each program's own words, in the forms of its versions."""
    found = spam(program.encode(), text.encode())
    if names is None:
        assert found is None
    else:
        wanted = tuple((name.encode(), client.encode()) for name, client in names)
        assert found == Spam(wanted, message.encode(), user.encode())


FORGED = [
    # program, what it says when a sender has chosen the words in his address, message id, headers or HELO
    (
        "amavis",
        AMAVIS.replace("Passed SPAM", "Passed CLEAN").replace("<m1@", "<(1-1) Passed SPAM {x}, [9.9.9.9] <@"),
    ),
    ("smtpd", f"NOQUEUE: reject: RCPT from x[192.0.2.1]: 554 x; helo=<{AMAVIS}>"),
    ("cleanup", f"4XyZ0d1kHcz2Kp: message-id=<{STORED}>"),
    (
        "cleanup",
        REFUSED.format("Message has a virus").replace("helo=<mail", "helo=<5.7.1 Spam message rejected"),
    ),
    ("cleanup", REFUSED.format("Message has a virus").replace("<a@", "<spam: 5.7.1 Spam@")),
    ("cleanup", CHECKED.format("reject", "Subject: x; from=<a> helo=<b>: 5.7.1 spam", "5.7.1 virus")),
    (
        "rspamd",
        RSPAMD.replace("F (add header)", "F (no action)").replace("<m1@", "<(default: T (reject): [20/15]@"),
    ),
    ("dovecot", STORED.replace("'Junk'", "'INBOX'").replace("m1@", "m1>: stored mail into mailbox 'Junk'@")),
    ("dovecot", STORED.replace("'Junk'", "'INBOX'").replace("m1@", "m1>: saved mail to Junk@")),
    ("dovecot", f"{LMTP}sieve: msgid=<m1>: saved mail to Junk>: discarded message"),
    ("spamd", SPAMD.replace("result: Y", "result: .").replace("m1@", "spamd: result: Y 9 - X scantime=1@")),
    ("imap", STORED),
]


@pytest.mark.parametrize(("program", "text"), FORGED)
def test_forged(program, text):
    """No word that a sender chooses makes a line one of spam."""
    assert spam(program.encode(), text.encode()) is None


def test_a_forged_queue_id_makes_it_unclear():
    """A line with several has them all: which is meant is for who knows the messages."""
    text = AMAVIS.replace("<a@", '<", Queue-ID: 4Other, "@')
    assert spam(b"amavis", text.encode()) == Spam(((b"4Other", b"192.0.2.1"), (QID.encode(), b"192.0.2.1")))
    text = RSPAMD.replace("<m1@", "<m1>, qid: <4Other>, ip: 198.51.100.1, x@")
    assert spam(b"rspamd", text.encode()) == Spam(
        ((b"4Other", b"198.51.100.1"), (QID.encode(), b"192.0.2.1"))
    )


@pytest.mark.parametrize(
    ("program", "line"), [("amavis", AMAVIS), ("rspamd", RSPAMD.replace("id: <m1@", "id: <<a@"))]
)
def test_a_crowd_of_forged_queue_ids(program, line):
    """However many a sender names, his message's own is among them."""
    crowd = "".join(f", Queue-ID: 4A{i}, qid: <4A{i}>, ip: 198.51.100.{i}," for i in range(60))
    found = spam(program.encode(), line.replace("<a@", f'<"{crowd}"@', 1).encode())
    assert found is not None
    assert (QID.encode(), CLIENT.encode()) in found.names


MESSAGE_IDS = [
    # what stands in the field, what is compared
    ("<m1@x.example>", "m1@x.example"),
    ("<m1@x.example> (of a robot)", "m1@x.example"),
    ("m1@x.example", "m1@x.example"),
    (" m1  @x.example ", "m1?@x.example"),
    ("<m\xe91@x.example>", "m??1@x.example"),
    ("<m1>,autolearn=@x.example>", "m1"),
    ("><", "??"),
    ("<>", ""),
    ("", ""),
    ("<" + "a" * 5000 + ">", "a" * MESSAGE_ID_MAX),
]


@pytest.mark.parametrize(("value", "wanted"), MESSAGE_IDS, ids=[row[0][:20] for row in MESSAGE_IDS])
def test_message_ids(value, wanted):
    """Whatever a sender writes there, it is compared as spamd writes it."""
    assert compared(value.encode()).decode() == wanted
    assert compared(b"<%b>" % wanted.encode()).decode() == wanted


def test_a_message_without_an_id():
    """Dovecot has a word for none, which is no id."""
    text = STORED.replace("<m1@spam.example>", "unspecified")
    assert spam(b"dovecot", text.encode()) == Spam(user=b"bob@example.net")


LONG = [
    # how a line begins, and what comes again and again in it
    ("amavis", AMAVIS[: AMAVIS.index("a@")], ", Message-ID: <"),
    ("spamd", SPAMD[: SPAMD.index("mid=")], "mid=<,uid=1,required_score=5,rhost=a,raddr=a,rport=3,"),
    ("rspamd", RSPAMD[: RSPAMD.index("m1")], ", qid: <a>, ip: 1, (default: T"),
    ("dovecot", STORED[: STORED.index("m1")], ">: stored mail into mailbox '"),
    ("cleanup", REFUSED[: REFUSED.index("{}")], "; from=<> to=<"),
]


@pytest.mark.parametrize(("program", "begin", "again"), LONG, ids=[row[0] for row in LONG])
def test_long_lines(program, begin, again):
    """A line that a sender has made long is read in a time that grows with its length, not its square."""
    assert spam(program.encode(), (begin + again * (10**6 // len(again))).encode()) is None


def test_folders_of_ones_own():
    """A folder by another name, whole and in any case."""
    own = folders("Unerwünscht".encode(), b"a.*")
    text = STORED.replace("Junk", "{}")
    wanted = {"Junk": True, "Unerwünscht": True, "JUNK": True, "a.*": True, "abc": False, "INBOX": False}
    assert {name: spam(b"dovecot", text.format(name).encode(), own) is not None for name in wanted} == wanted


@given(
    st.sampled_from([b"amavis", b"rspamd", b"spamd", b"dovecot", b"cleanup"]),
    st.sampled_from([AMAVIS, RSPAMD, SPAMD, STORED, REFUSED, CHECKED]),
    st.binary(max_size=60),
    st.integers(0, 300),
)
def test_any_line_does_no_harm(program, line, noise, at):
    """Whatever stands in a line, it is read or passed over."""
    spam(program, line[:at].encode() + noise + line[at:].encode())
    spam(program, noise)
