"""What programs behind this filter say in a mail log of a message that they take for spam.

Known are amavisd-new, rspamd, SpamAssassin's spamd, milters and header checks by which Postfix refuses at the
end of a message, and Dovecot, which puts it into a folder for spam.

A line says much that the sender has chosen: his address, the message id, headers.  Nobody may speak for a
message that is not his.  So nothing of that is read as a queue id where there is a doubt: amavis and rspamd
name the client too, and `Spam.names` has every queue id that a line may mean, to be taken only where client
and message agree (`mailways`).

Pure.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MESSAGE_ID_MAX: Final = 128
"""Bytes of a message id that are compared: Dovecot cuts long ones."""
_CUT: Final = 1024  # bytes of a message id that are looked at


def folders(*names: bytes) -> re.Pattern[bytes]:
    """The folders for spam, by their whole names: the usual ones, and these."""
    usual = rb"(?:.*[./\\])?(?:junk|spam)(?:[ _-]?(?:e-?)?mail)?"
    return re.compile(b"|".join((usual, *map(re.escape, names))), re.IGNORECASE)


JUNK: Final = folders()

_AMAVIS: Final = re.compile(
    rb"\([\w.-]+\) (?:Passed|Blocked) SPAM(?:MY)?(?:-\w+)?(?: \{[^}<]*\})?,"
    rb"(?: [A-Z][\w/]*)* \[([^\]<]+)\][^<]*<"
)
_AMAVIS_ID: Final = re.compile(rb", Queue-ID: (\w{1,32})(?=,)")
_RSPAMD: Final = re.compile(rb"(?:#\d+\([\w. ]+\) )?<\w*>; \w+; rspamd_task_write_log: id: <")
_RSPAMD_ID: Final = re.compile(rb", qid: <(\w{1,32})>, ip: ([0-9a-fA-F.:]+)(?=,)")
_RSPAMD_SPAM: Final = re.compile(
    rb" \(default: (?:T \(|[FS] \((?:reject|add header|rewrite subject|quarantine)\))"
)
# There is no ">" within its message id: spamd puts "?" in its place.
_SPAMD: Final = re.compile(
    rb"(?:spamd: )?result: Y -?\d+ - [\w,]* scantime=[\d.]+,size=\d+,user=(?>.*?,uid=)[^,]*,"
    rb"required_score=[\d.-]+,rhost=[^,]*,raddr=[^,]*,rport=[^,]*,mid=<([^>]*)>,(?:rmid=|bayes=|autolearn=)"
)
_DOVECOT: Final = re.compile(
    rb"(?:lmtp|lda|deliver)\((?:\d+, )?([^()]+)\)(?:<[^<>]*>)*: (?:\S+: )??(?:Info: )?(?:sieve: )?"
    rb"(?:fileinto action: )?msgid=(.*): (?:fileinto action: )?"
    rb"(?:stored mail into mailbox '([^']*)'|saved mail to (.*))"
)
_REFUSED: Final = re.compile(
    rb"(\w+): milter-(?:reject|discard): END-OF-MESSAGE from [^\s\[]*\[[^\]]*\]: (.*?)(?:; from=<|$)"
)
_CHECKED: Final = re.compile(rb"(\w+): (?:reject|discard|redirect|hold): (?:mime |nested )?header (.*)")
_ODD: Final = re.compile(rb"[^\x21-\x3b\x3d\x3f-\x7e]")
_MARKED: Final = re.compile(rb"(?i)x-spam-(?:flag|status): *yes\b")
_NO_MESSAGE: Final = b"unspecified"  # Dovecot, of a message without an id
_SPAM: Final = re.compile(rb"(?i)\bspam|\bjunk\b|\bunsolicited\b|\bUCE\b|\bUBE\b")


class Spam(NamedTuple):
    """A line that calls a message spam.

    names: queue ids that it may mean, each with the client's address where the line has it.  message_id: as
    it is compared (`compared`).  user: into whose mailbox it went, empty if it is spam for all.
    """

    names: tuple[tuple[bytes, bytes], ...] = ()
    message_id: bytes = b""
    user: bytes = b""


def spam(program: bytes, text: bytes, junk: re.Pattern[bytes] = JUNK) -> Spam | None:
    """What a line of a program says, None if it calls nothing spam; `junk`: names of folders, whole."""
    match program:
        case b"amavis":
            return _amavis(text)
        case b"rspamd":
            return _rspamd(text)
        case b"spamd":
            found = _SPAMD.match(text)
            return Spam(message_id=compared(b"<%b>" % found[1])) if found else None
        case b"dovecot":
            found = _DOVECOT.fullmatch(text)
            if found and junk.fullmatch(found[3] if found[3] is not None else found[4]):
                message = b"" if found[2] == _NO_MESSAGE else compared(found[2])
                return Spam(message_id=message, user=found[1].lower())
        case b"cleanup":
            return _cleanup(text)
    return None


def compared(value: bytes) -> bytes:
    """The message id of a field's value as it is compared, for each program writes it in its own way.

    What is between the brackets, if there are any, and "?" for what is not printable: so does spamd.
    """
    start = value.find(b"<")
    end = value.find(b">", start + 1)
    text = value[start + 1 : end] if 0 <= start < end else value
    return _ODD.sub(b"?", b" ".join(text[:_CUT].split())[:MESSAGE_ID_MAX])


def _amavis(text: bytes) -> Spam | None:
    """The client stands before all that the sender has chosen, the queue id among it."""
    head = _AMAVIS.match(text)
    if head is None:
        return None
    client = head[1]
    named = dict.fromkeys(_AMAVIS_ID.findall(text, head.end()))
    if not named:
        # Without XFORWARD it is not told the queue id.
        _, field, rest = text[head.end() :].partition(b", Message-ID: <")
        message, ended, _ = rest.partition(b">, ")
        return Spam(message_id=compared(b"<%b>" % message)) if field and ended else None
    return Spam(tuple((name, client) for name in named))


def _rspamd(text: bytes) -> Spam | None:
    head = _RSPAMD.match(text)
    if head is None:
        return None
    named = list(_RSPAMD_ID.finditer(text, head.end()))
    if not named or not _RSPAMD_SPAM.search(text, named[0].end()):
        return None
    return Spam(tuple(dict.fromkeys((one[1], one[2]) for one in named)))


def _cleanup(text: bytes) -> Spam | None:
    """Postfix's own words begin with the queue id; a milter's reply ends where the sender's begin."""
    if refused := _REFUSED.match(text):
        return Spam(((refused[1], b""),)) if _SPAM.search(refused[2]) else None
    if checked := _CHECKED.match(text):
        said = checked[2].rpartition(b">: ")[2]
        return Spam(((checked[1], b""),)) if _MARKED.match(checked[2]) or _SPAM.search(said) else None
    return None
