"""What is done to the header of a message at its end: forged fields go, ours are added.

Which fields are forged `forged` says.  The MTA counts fields by name, so what goes must go before anything is
added.  Postfix and Sendmail both give a value with its folds, a name without blanks, and count a name
in any case together; to neither is a line with a name that is not ASCII a header field.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Protocol

from hybridgrey.config.load import Config
from hybridgrey.filter.forged import Tally
from hybridgrey.filter.reply import Reply

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

NAME: Final = "hybridgrey"
TOO_MANY: Final = Reply("554", "5.7.1", "Too many header fields that claim to be this site's")


class Fields(Protocol):
    """The header of the message at hand, as an MTA lets a milter change it."""

    def addheader(self, name: str, value: str, index: int = ..., /) -> None:
        """Add a field at a place, 0 for the first."""

    def chgheader(self, name: str, index: int, value: str | None, /) -> None:
        """Change a field, by its number from 1 among those of its name; None takes it out."""


class Headers:
    """The section ``[headers]`` at work: whether it `adds` fields, results among them, and `removes` any."""

    def __init__(self, config: Config, log: FilteringBoundLogger) -> None:
        self._log = log
        self._observe = config.observe
        self._greylist = config.headers.greylist
        self.adds_results = config.headers.authentication_results
        self.removes = config.headers.remove_forged
        self._score = config.headers.score and config.scanner is not None
        self.adds = self._greylist or self.adds_results or self._score

    def remove(self, message: Fields, tally: Tally, queue_id: str) -> bool:
        """Take out forged fields; False if there are more than anybody honest has.

        In observe mode too: results are added there, and who reads them must not take others for them.
        """
        if tally.too_many and not self._observe:
            self._log.warning("too many forged headers", queue_id=queue_id, at_least=tally.count)
            return False
        for field, index in tally.backwards():
            message.chgheader(field, index, None)
        self._log.info("forged headers removed", queue_id=queue_id, count=tally.count)
        return True

    def add(
        self, message: Fields, name: str, delay: int, results: Iterable[str], score: float | None = None
    ) -> None:
        """Add what there is to say: a delay in seconds, if any, RFC 8904 results, a score; `name` is ours."""
        if self._score and score is not None:
            message.addheader("X-Spam-Score", f"{score:.12g} by {NAME} at {name}", 0)
        if self._greylist and delay:
            message.addheader("X-Greylist", f"delayed {delay} seconds by {NAME} at {name}", 0)
        if results:
            message.addheader("Authentication-Results", ";\n\t".join([name, *results]), 0)
