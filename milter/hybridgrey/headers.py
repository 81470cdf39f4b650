"""What is done to the header of a message at its end: forged fields go, ours are added.

Which fields are forged `forged` says; what there is to add `session` has noted.  The MTA counts fields by name,
so what goes must go before anything is added.  Both Postfix and Sendmail give a field's value as bytes, folds
kept, its name without blanks, and count names in any case together; to neither is a line with a name that is
not ASCII a header field.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

import milter
from hybridgrey.config import Config
from hybridgrey.forged import Tally
from hybridgrey.screen import Reply

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

Context: TypeAlias = "milter.milterContext"

NAME: Final = "hybridgrey"
TOO_MANY: Final = Reply("554", "5.7.1", "Too many header fields that claim to be this site's")


class Headers:
    """The section ``[headers]`` at work; `actions` are the milter actions that it needs."""

    def __init__(self, config: Config, log: FilteringBoundLogger) -> None:
        self._log = log
        self._observe = config.observe
        self._greylist = config.headers.greylist
        self.adds_results = config.headers.authentication_results
        self.removes = config.headers.remove_forged
        self.actions = milter.ADDHDRS if self._greylist or self.adds_results else 0
        self.actions |= milter.CHGHDRS if self.removes else 0

    def remove(self, ctx: Context, tally: Tally, queue_id: str) -> bool:
        """Take out forged fields; False if there are more than anybody honest has.

        In observe mode too: results are added there, and who reads them must not take others for them.
        """
        if tally.too_many and not self._observe:
            self._log.warning("too many forged headers", queue_id=queue_id, at_least=tally.count)
            return False
        for field, index in tally.backwards():
            ctx.chgheader(field, index, None)
        self._log.info("forged headers removed", queue_id=queue_id, count=tally.count)
        return True

    def add(self, ctx: Context, name: str, delay: int, results: Iterable[str]) -> None:
        """Add what there is to say: a delay in seconds, if any, and RFC 8904 results; `name` is ours."""
        if self._greylist and delay:
            ctx.addheader("X-Greylist", f"delayed {delay} seconds by {NAME} at {name}", 0)
        if results:
            ctx.addheader("Authentication-Results", ";\n\t".join([name, *results]), 0)
