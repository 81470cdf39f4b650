"""Short ways to say one thing to an MTA; for any part that has `client(address, …)`."""

from __future__ import annotations

import re
from typing import Any

from parts.smtp import Answer, Client


def plain(answer: Answer) -> str:
    """The answer without the recipient that Sendmail puts before a milter's 4yz text."""
    return re.sub(r"^(\d{3}) ([45]\.\d\.\d )?<[^>]*>\.\.\. ", r"\1 \2", str(answer)).replace("\n", " / ")


def opened(mta: Any, address: str, **client: Any) -> Client:
    """A client that has greeted."""
    connection: Client = mta.client(address, **client)
    connection.ehlo()
    return connection


def rcpt(mta: Any, address: str, sender: str, recipient: str, **client: Any) -> str:
    """The answer to one recipient, or to MAIL if that fails, on a connection of its own, which then ends."""
    with opened(mta, address, **client) as connection:
        answer = connection.mail(sender)
        if answer.code == 250:
            answer = connection.rcpt(recipient)
        connection.quit()
    return plain(answer)


def send(mta: Any, address: str, sender: str, recipient: str, **client: Any) -> str:
    """The answer to one recipient and, if that passed, to the whole message."""
    with opened(mta, address, **client) as connection:
        answers = connection.transaction(sender, [recipient])
        connection.quit()
    return plain(answers[-1])
