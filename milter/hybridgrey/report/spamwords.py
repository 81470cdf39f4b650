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
_NAMES_MAX: Final = 8


def folders(*names: bytes) -> re.Pattern[bytes]:
    """The folders for spam, by their whole names: the usual ones, and these."""
    usual = rb"(?:.*[./\\])?(?:junk|spam)(?:[ _-]?(?:e-?)?mail)?"
    return re.compile(b"|".join((usual, *map(re.escape, names))), re.IGNORECASE)


JUNK: Final = folders()

_AMAVIS: Final = re.compile(
    rb"\([\w.-]+\) (?:Passed|Blocked) SPAM(?:MY)?(?:-\w+)?(?: \{[^}<]*\})?,"
    rb"(?: [A-Z][\w/]*)* \[([^\]<]+)\][^<]*<"
)
_AMAVIS_ID: Final = re.compile(rb", Queue-ID: (\w+)(?=,)")
_AMAVIS_MESSAGE: Final = re.compile(rb", Message-ID: <(.*?)>, ")
_RSPAMD: Final = re.compile(rb"(?:#\d+\([\w. ]+\) )?<\w*>; \w+; rspamd_task_write_log: id: <")
_RSPAMD_ID: Final = re.compile(rb", qid: <(\w+)>, ip: ([0-9a-fA-F.:]+)(?=,)")
_RSPAMD_SPAM: Final = re.compile(
    rb" \(default: (?:T \(|[FS] \((?:reject|add header|rewrite subject|quarantine)\))"
)
_SPAMD: Final = re.compile(
    rb"(?:spamd: )?result: Y -?\d+ - [\w,]* scantime=[\d.]+,size=\d+,user=.*?,uid=[^,]*,"
    rb"required_score=[\d.-]+,rhost=[^,]*,raddr=[^,]*,rport=[^,]*,mid=<(.*?)>,(?:rmid=|bayes=|autolearn=)"
)
_DOVECOT: Final = re.compile(
    rb"(?:lmtp|lda|deliver)\((?:\d+, )?([^()]+)\)(?:<[^<>]*>)*: (?:\S+: )??(?:Info: )?(?:sieve: )?"
    rb"(?:fileinto action: )?msgid=<(.*)>: (?:fileinto action: )?"
    rb"(?:stored mail into mailbox '([^']*)'|saved mail to (.*))"
)
_REFUSED: Final = re.compile(
    rb"(\w+): milter-(?:reject|discard): END-OF-MESSAGE from [^\s\[]*\[[^\]]*\]: (.*?)(?:; from=<|$)"
)
_CHECKED: Final = re.compile(rb"(\w+): (?:reject|discard|redirect|hold): (?:mime |nested )?header (.*)")
_MARKED: Final = re.compile(rb"(?i)x-spam-(?:flag|status): *yes\b")
_SPAM: Final = re.compile(rb"(?i)\bspam|\bjunk\b|\bunsolicited\b|\bUCE\b|\bUBE\b")


class Spam(NamedTuple):
    """A line that calls a message spam.

    names: queue ids that it may mean, each with the client's address where the line has it.  message_id: what
    is between its brackets.  user: into whose mailbox it went, empty if it is spam for all.
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
            return Spam(message_id=shortened(found[1])) if found else None
        case b"dovecot":
            found = _DOVECOT.fullmatch(text)
            if found and junk.fullmatch(found[3] if found[3] is not None else found[4]):
                return Spam(message_id=shortened(found[2]), user=found[1].lower())
        case b"cleanup":
            return _cleanup(text)
    return None


def shortened(message_id: bytes) -> bytes:
    """A message id as it is compared."""
    return message_id[:MESSAGE_ID_MAX]


def _amavis(text: bytes) -> Spam | None:
    """The client stands before all that the sender has chosen, the queue id among it."""
    head = _AMAVIS.match(text)
    if head is None:
        return None
    client = head[1]
    named = dict.fromkeys(_AMAVIS_ID.findall(text, head.end()))
    if not named:
        # Without XFORWARD it is not told the queue id.
        message = _AMAVIS_MESSAGE.search(text, head.end())
        return Spam(message_id=shortened(message[1])) if message else None
    return Spam(tuple((name, client) for name in list(named)[:_NAMES_MAX]))


def _rspamd(text: bytes) -> Spam | None:
    head = _RSPAMD.match(text)
    if head is None:
        return None
    named = list(_RSPAMD_ID.finditer(text, head.end()))
    if not named or not _RSPAMD_SPAM.search(text, named[0].end()):
        return None
    return Spam(tuple(dict.fromkeys((one[1], one[2]) for one in named))[:_NAMES_MAX])


def _cleanup(text: bytes) -> Spam | None:
    """Postfix's own words begin with the queue id; a milter's reply ends where the sender's begin."""
    if refused := _REFUSED.match(text):
        return Spam(((refused[1], b""),)) if _SPAM.search(refused[2]) else None
    if checked := _CHECKED.match(text):
        said = checked[2].rpartition(b">: ")[2]
        return Spam(((checked[1], b""),)) if _MARKED.match(checked[2]) or _SPAM.search(said) else None
    return None
