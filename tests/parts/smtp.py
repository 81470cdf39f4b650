r"""A small SMTP client that hides nothing: each command is one line of bytes, each reply code and text.

    with Client(("127.0.0.1", port)) as client:
        client.xclient(ADDR="192.0.2.1", NAME="mail.example.org")
        client.ehlo()
        assert client.mail("a@example.org").code == 250
        print(client.rcpt("b@example.net"))

smtplib would add checks and quoting of its own; here 8-bit bytes, over-long lines and bad syntax go out as
given.
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

Text = str | bytes
MESSAGE = "From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: test\r\n\r\nHello.\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """One SMTP reply; `text` is without the codes, its lines joined by newlines."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


def raw(text: Text) -> bytes:
    """Bytes as they go over the wire."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


class Client:
    """One SMTP connection; `dialogue` keeps what was said, as ("C" or "S", line)."""

    def __init__(
        self, address: tuple[str, int], *, sock: socket.socket | None = None, timeout: float = 30.0
    ) -> None:
        self.dialogue: list[tuple[str, str]] = []
        self.socket = sock or socket.create_connection(address, timeout)
        self.socket.settimeout(timeout)
        self._stream = self.socket.makefile("rb")
        self.greeting = self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close without QUIT."""
        self._stream.close()
        self.socket.close()

    def answer(self) -> Answer:
        """Read one reply, all its lines; code 0 when the server has closed."""
        lines: list[str] = []
        while True:
            line = self._stream.readline().decode("utf-8", "surrogateescape").rstrip("\r\n")
            if not line:
                return Answer(0, "connection closed")
            self.dialogue.append(("S", line))
            lines.append(line[4:])
            if line[3:4] != "-":
                return Answer(int(line[:3]), "\n".join(lines))

    def send(self, line: Text) -> None:
        """Send one line and do not wait."""
        self.dialogue.append(("C", raw(line).decode("utf-8", "backslashreplace")))
        self.socket.sendall(raw(line) + b"\r\n")

    def command(self, line: Text) -> Answer:
        """Send one line and read its reply."""
        self.send(line)
        return self.answer()

    def xclient(self, **attributes: str) -> Answer:
        """Become another client (Postfix): ADDR, NAME, REVERSE_NAME, LOGIN, HELO, PROTO, PORT."""
        if ":" in attributes.get("ADDR", "") and not attributes["ADDR"].upper().startswith("IPV6:"):
            attributes["ADDR"] = "IPV6:" + attributes["ADDR"]
        words = " ".join(f"{name}={value}" for name, value in attributes.items())
        return self.command(f"XCLIENT {words}")

    def ehlo(self, name: Text = "client.test") -> Answer:
        return self.command(b"EHLO " + raw(name))

    def starttls(self) -> Answer:
        """STARTTLS; the server's certificate is not looked at."""
        answer = self.command("STARTTLS")
        if answer.code == 220:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._stream.close()
            self.socket = context.wrap_socket(self.socket)
            self._stream = self.socket.makefile("rb")
        return answer

    def bdat(self, *chunks: Text) -> list[Answer]:
        """A message in chunks (RFC 3030), of which the last ends it: the answer to each."""
        answers = []
        for number, chunk in enumerate(chunks, 1):
            last = " LAST" if number == len(chunks) else ""
            self.dialogue.append(("C", f"BDAT {len(raw(chunk))}{last}"))
            self.socket.sendall(b"BDAT %d%s\r\n" % (len(raw(chunk)), last.encode()) + raw(chunk))
            answers.append(self.answer())
        return answers

    def login(self, name: str, password: str) -> Answer:
        """AUTH PLAIN (RFC 4616)."""
        response = base64.b64encode(f"\0{name}\0{password}".encode()).decode()
        return self.command(f"AUTH PLAIN {response}")

    def logged_in(self, name: str, password: str) -> Self:
        """This client, when it has logged in."""
        self.ehlo()
        answer = self.login(name, password)
        if answer.code != 235:
            self.close()
            raise AssertionError(f"AUTH: {answer}")
        self.dialogue.clear()
        return self

    def mail(self, sender: Text, *parameters: Text) -> Answer:
        """MAIL FROM; the brackets are added here."""
        return self.command(b" ".join([b"MAIL FROM:<" + raw(sender) + b">", *map(raw, parameters)]))

    def rcpt(self, recipient: Text, *parameters: Text) -> Answer:
        """RCPT TO; the brackets are added here."""
        return self.command(b" ".join([b"RCPT TO:<" + raw(recipient) + b">", *map(raw, parameters)]))

    def data(self, content: Text | None = None) -> Answer:
        """DATA and a whole message; the answer after the final dot, or the refusal of DATA."""
        answer = self.command("DATA")
        if answer.code != 354:
            return answer
        lines = raw(content or MESSAGE.format(sender="a@example.org", recipient="b@example.net")).split(
            b"\r\n"
        )
        body = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
        self.socket.sendall(body.removesuffix(b"\r\n") + b"\r\n.\r\n")
        self.dialogue.append(("C", "(message)"))
        return self.answer()

    def rset(self) -> Answer:
        return self.command("RSET")

    def quit(self) -> Answer:
        """Say QUIT and close."""
        answer = self.command("QUIT")
        self.close()
        return answer

    def transaction(
        self, sender: Text, recipients: Sequence[Text], content: Text | None = None
    ) -> list[Answer]:
        """One message: the answers to each RCPT and, when any passed, to the message; else RSET."""
        answers = [self.mail(sender)]
        if answers[0].code != 250:
            return answers
        answers = [self.rcpt(recipient) for recipient in recipients]
        if any(answer.code in (250, 251) for answer in answers):
            return [*answers, self.data(content)]
        self.rset()
        return answers
