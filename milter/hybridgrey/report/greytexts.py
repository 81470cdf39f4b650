"""Whether a temporary refusal is greylisting, by what it says.

Known are our own replies and those of other greylisters: whatever has the word in it, and the default texts
of those that do not say it.  More can be given.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_WORDS: Final = re.compile(rb"gr[ae]y[-_ ]?list|\b(?:post|sql)-?gr[ae]y\b", re.IGNORECASE)
# Whole texts, for each could be said by others as a part: rspamd's, gross's, gld's, policyd's.
_WHOLE: Final = re.compile(
    rb"(?:please )?try again later\.?"
    rb"|service temporarily unavailable, please try later\.?"
    rb"|policy rejection- ?please try later\.?",
    re.IGNORECASE,
)
# What Postfix puts before the text of a policy service, its own part between brackets already gone.
_BEFORE: Final = re.compile(
    rb":? ?(?:Recipient|Sender|Client host|Helo command|End-of-data)[\w ]* rejected: "
)


class Texts:
    """What is known of greylisting's replies."""

    def __init__(
        self, own: Sequence[re.Pattern[bytes]] = (), others: Sequence[re.Pattern[bytes]] = ()
    ) -> None:
        """`own`: what our greylisting says, whole; `others`: to be found anywhere in a text."""
        self._own = own
        self._others = others

    def are_own(self, said: bytes) -> bool:
        """Whether it is our greylisting; `said` is a reply without codes and what a client said."""
        return any(own.fullmatch(said) for own in self._own)

    def are_greylisting(self, said: bytes) -> bool:
        """Whether it is greylisting, whoever does it."""
        bare = _BEFORE.sub(b"", said, count=1)
        if _WORDS.search(said) or _WHOLE.fullmatch(bare):
            return True
        return any(other.search(bare) for other in self._others)
