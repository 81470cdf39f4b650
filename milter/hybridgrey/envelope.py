"""Envelope paths: the one reading of what a client wrote after MAIL FROM and RCPT TO.

A path is text of the client's choosing, and an MTA reads more into it than RFC 5321 says: Postfix takes
comments, groups (``phrase:;user``), blanks, routes, ``%`` and ``!`` forms, and delivers to what *it* read.  A
second parser that reads otherwise is a way round every rule.  So:

* Postfix says in ``{mail_addr}`` and ``{rcpt_addr}`` what it read: the address after its rewriting, in the
  form of RFC 5321, its local part quoted where need be, in lower case; empty for ``<>``.  It is the address.
  Only of a path that is not ASCII it has less than there was: the macro is casefolded, so ``straße`` is
  ``strasse`` in it.  Such a path is read strictly, and the macro must agree.  Postfix's tables and mailboxes
  are casefolded, too: mail to ``groß`` is delivered to ``gross``, unless another host has the mailbox.  So
  a local part that folding makes another one is not read at all.
* Sendmail's macros have the user of the resolved triple, after virtusertable, without a domain for a local
  mailer.  There the path is read strictly; where its form is one that MTAs treat differently, the macro must
  say the same.
* Without a macro the path is read strictly.

What cannot be read so is *uncertain*: it equals no entry of any rule (`policy`), and its key is a digest of
the whole path.  Nothing is cut before it is compared.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final, NamedTuple

from hybridgrey import address

MAX_LOCAL: Final = 256  # RFC 5321 4.5.3.1.1 allows 64; bounce addresses of real senders use up to 150
MAX_SHOWN: Final = 320  # 64 + 1 + 255: what no real address exceeds
_HEAD: Final = 200  # characters shown of a longer one

_QUOTED = r'"(?P<quoted>(?:[^"\\\ud800-\udfff]|\\[^\ud800-\udfff])*)"'
_UNQUOTED = r'(?P<local>[^\s\x00-\x20\x7f\ud800-\udfff"\\()<>\[\]:;,@]+)'
_MAILBOX = re.compile(rf"(?:{_QUOTED}|{_UNQUOTED})(?:@(?P<domain>.+))?", re.DOTALL)
# RFC 5321 4.1.2, `A-d-l ":"`: to be taken off (appendix C).
_ROUTE = re.compile(r"@[A-Za-z0-9_.-]+(?:,@[A-Za-z0-9_.-]+)*:")
_DOMAIN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[a-z0-9:.-]+\]")
# A dot-string (RFC 5321, RFC 6531) without the characters that are routes to some MTA: `%`, `!` and the like.
_ATOM = r"[A-Za-z0-9_+=#$&'*/?{}~\x80-\ud7ff\ue000-\U0010ffff-]+"
_PLAIN = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# Nearly all addresses: certain to every MTA, and a key as they are, in a fifth of the time.
_ORDINARY = re.compile(r"([a-z0-9_+=-]+(?:\.[a-z0-9_+=-]+)*)@([a-z0-9_-]+(?:\.[a-z0-9_-]+)+)")
# Local parts that stay what they are when their key is read again: with a domain, and without.
_CLEAR = re.compile(r'(?![ \t\r\n\v\f\0])[^"\\<>…\ud800-\udfff]+')
_CLEAR_ALONE = re.compile(r'[^\s\x00-\x20\x7f\ud800-\udfff"\\()<>\[\]:;,@…]+')
_DIGEST = re.compile(r"@[A-Za-z0-9_-]{22}")
_BLANK: Final = " \t\r\n\v\f\0"
_CUT: Final = "…"


class Mailbox(NamedTuple):
    """An envelope sender or recipient.

    `text` is for people, in the case that the client used: ``<>``, or the address; of an uncertain one the
    path in its brackets.  `local` is without quotes, `domain` in A-labels, both in lower case; both are empty
    for the null path and where nothing is `certain`.  `key` stands for it in a triplet: the address, or `@`
    and a digest where it is uncertain, too long or of odd characters; ``read(box.key).key == box.key``.
    """

    text: str
    local: str
    domain: str
    certain: bool
    key: str

    @property
    def null(self) -> bool:
        """Whether this is ``<>``."""
        return self.key == "<>"


NULL: Final = Mailbox("<>", "", "", True, "<>")


def delivered(raw: bytes, said: str | None, mailer: str = "", *, final: bool) -> Mailbox:
    """The address that the MTA means by the path `raw`.

    `said` is its macro, None where it sent none or one that cannot be decoded; `mailer` what delivers there.
    `final`: the macro is the address (Postfix), else it is the user of the resolved triple (Sendmail).
    """
    path = raw.decode("utf-8", "surrogateescape")
    if said is None or not final:
        return _confirmed(path, said, mailer)
    if not path.isascii():
        # The macro is casefolded: straße@ and strasse@ look alike in it, and only the path has what is meant.
        return _confirmed(path, said, mailer, always=True)
    if not said:
        return NULL
    # The macro is in lower case; the log shows how it was written.
    inner = path[1:-1]
    shown = inner if inner.lower() == said.lower() else said
    if box := _ordinary(shown):
        return box
    found = _parsed(said)
    return _uncertain(path) if found is None else _made(shown, *found)


def strict(path: str) -> Mailbox:
    """A path, with or without its brackets, by RFC 5321 section 4.1.2, and only if all MTAs read it so."""
    return _confirmed(path, None, "")


def read(text: str) -> Mailbox:
    """An address as people, other programs, our log and our keys write it.

    In brackets it is a path, and read strictly.  Without them all before the last ``@`` is the local part:
    quoted or, as policy services and other greylisters have it, not.
    """
    if box := _ordinary(text):
        return box
    text = text.strip(_BLANK)
    if text in ("", "<>"):
        return NULL
    if _DIGEST.fullmatch(text):
        return Mailbox(text, "", "", False, text)
    if _CUT in text:
        return _uncertain(text)
    if text[0] == "<" and text[-1] == ">":
        return strict(text)
    found = _parsed(text)
    if found is None:
        local, _, domain = text.rpartition("@")
        domain = _domain(domain)
        if not local or not domain:
            return _uncertain(text)
        found = local.lower(), domain
    return _made(text, *found)


def shortened(text: str, limit: int = MAX_SHOWN, head: int = _HEAD) -> str:
    """A text of at most `limit` characters: a longer one is its `head` and a digest of the whole."""
    return text if len(text) <= limit else f"{text[:head]}{_CUT}{_digest('text', text)[1:]}"


def _confirmed(path: str, said: str | None, mailer: str, *, always: bool = False) -> Mailbox:
    """A path read strictly; one that MTAs differ over, or with `always` any, only if `said` is the same."""
    if path in ("", "<>"):
        return NULL
    inner = path[1:-1] if path[0] == "<" and path[-1] == ">" else path
    if mailer != "error" and not always and (box := _ordinary(inner)):
        return box
    if route := _ROUTE.match(inner):
        inner = inner[route.end() :]
    found = _parsed(inner)
    if found is None or mailer == "error" or found[0] != found[0].casefold():
        return _uncertain(path)
    if (always or not _PLAIN.fullmatch(found[0])) and not _same(inner, said or "", bare=not always):
        return _uncertain(path)
    return _made(inner, *found)


def _same(one: str, said: str, *, bare: bool) -> bool:
    """Whether an address and a macro are the same but for case; `bare`: the macro may lack the domain."""
    mine, theirs = _parsed(one.casefold()), _parsed(said.casefold())
    return mine is not None and (theirs == mine or (bare and theirs == (mine[0], "")))


def _ordinary(text: str) -> Mailbox | None:
    """An address of which `_parsed` and `_made` would make just this; None: they have to be asked."""
    key = text.lower()
    match = _ORDINARY.fullmatch(key) if len(key) <= MAX_LOCAL and text.isascii() else None
    return (
        Mailbox(text, match[1], match[2], True, key) if match and len(match[2]) <= address.MAX_NAME else None
    )


def _parsed(text: str) -> tuple[str, str] | None:
    """Local part and domain of ``local``, ``local@domain`` or ``"local"@domain``; None for anything else."""
    match = _MAILBOX.fullmatch(text)
    if match is None:
        return None
    quoted, local, domain = match["quoted"], match["local"], match["domain"]
    if local is None:
        local = re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
    if domain is None:
        return (local.lower(), "") if local else None
    domain = _domain(domain)
    return (local.lower(), domain) if domain else None


def _domain(text: str) -> str:
    """A domain or address literal in its form for comparison; "" for what is none."""
    if text[-1:].isspace() or text[:1].isspace():
        return ""
    name = address.host(text)
    # Wide brackets become plain ones in IDNA; no MTA takes what they hold for an address literal.
    known = _DOMAIN.fullmatch(name) and (text.isascii() or name[0] != "[")
    return name if known and len(name) <= address.MAX_NAME else ""


def _made(text: str, local: str, domain: str) -> Mailbox:
    key = f"{local}@{domain}" if domain else local
    if len(local) > MAX_LOCAL or not (_CLEAR if domain else _CLEAR_ALONE).fullmatch(local):
        key = _digest("mailbox", key)
    return Mailbox(shortened(text), local, domain, True, key)


def _uncertain(path: str) -> Mailbox:
    inner = path[1:-1] if path[:1] == "<" and path[-1:] == ">" else path
    return Mailbox(f"<{shortened(inner)}>", "", "", False, _digest("path", path))


def _digest(kind: str, text: str) -> str:
    """``@`` and 128 bits of a digest: no address begins so, for a local part is never empty there."""
    raw = hashlib.sha256(f"{kind}\0{text}".encode("utf-8", "surrogatepass")).digest()[:16]
    return f"@{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"
