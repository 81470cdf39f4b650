"""The terms on which the greylist lets senders in.

They are those of the configuration's ``[greylist]`` (`config.settings.Greylist`), which is handed on whole:
a new term stands there, here, and where it is used.
"""

from __future__ import annotations

from typing import Protocol


class Terms(Protocol):
    """What of ``[greylist]`` says who gets in; none of it ever changes."""

    @property
    def retry_window(self) -> int:
        """Seconds from the first attempt in which a retry passes."""

    @property
    def lifetime(self) -> int:
        """Seconds without mail after which what has passed is forgotten."""

    @property
    def ipv4_prefix(self) -> int:
        """Bits of a client network."""

    @property
    def ipv6_prefix(self) -> int:
        """Bits of a client network."""

    @property
    def auto_allow_after(self) -> int:
        """Passed triplets that let a whole network in; 0: none do."""

    @property
    def auto_allow_interval(self) -> int:
        """Seconds in which one passed triplet of a network counts; 0: all do."""

    @property
    def max_waiting(self) -> int:
        """Triplets of one client address that may wait at a time; 0: no bound."""
