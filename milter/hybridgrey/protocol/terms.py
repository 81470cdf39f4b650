"""The negotiation (SMFIC_OPTNEG): an MTA's offer, the filter's terms, and what comes of both.

The rule is libmilter's st_optionneg: nothing is taken that was not offered; an offer of nothing means what
version 1 had; a reply that the filter will not give and the MTA cannot do without is given for it; lists of
macros stand in the answer, by stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hybridgrey.protocol import wire
from hybridgrey.protocol.wire import ProtocolError, Stage

_REMEMBERED = 64


class Agreement(NamedTuple):
    """What holds for a connection.

    `actions` and `steps` are as the MTA was told; `unused` are steps that the filter does not want, whether
    the MTA leaves them out or not; `silent` the replies it does not give, whether the MTA can do without or
    not; `largest` is the most bytes of a payload, `answer` the frame for the MTA.
    """

    version: int
    actions: int
    steps: int
    unused: int
    silent: int
    largest: int
    answer: bytes


class Terms:
    """What a filter wants of an MTA; one for all connections, as MTAs offer the same each time."""

    __slots__ = ("_if_fixed", "_known", "_lists", "actions", "macros", "steps")

    def __init__(
        self,
        *,
        actions: int = 0,
        steps: int = 0,
        if_fixed: int = 0,
        macros: Mapping[Stage, str] | None = None,
    ) -> None:
        """`actions`, `steps`: flags of `wire`. `macros`: names with spaces between, for each stage.

        `if_fixed`: further steps, for an MTA that does not let headers be changed. A stage that has no list
        of macros is sent what the MTA sends by itself.
        """
        self.macros = {stage: names for stage, names in sorted((macros or {}).items()) if names}
        self._lists = b"".join(
            wire.LONG.pack(stage) + names.encode("ascii") + b"\0" for stage, names in self.macros.items()
        )
        self.actions = actions | (wire.SET_MACRO_LISTS if self.macros else 0)
        self.steps = steps
        self._if_fixed = if_fixed
        self._known: dict[bytes, Agreement] = {}

    def wanted(self, actions: int) -> int:
        """The steps that are wanted of an MTA that agrees to these actions."""
        return self.steps if actions & wire.CHANGE_HEADERS else self.steps | self._if_fixed

    def agree(self, payload: bytes) -> Agreement:
        """What comes of an offer; ProtocolError if it is too short or of a version that is too old."""
        offer = payload[: wire.OFFER.size]
        known = self._known.get(offer)
        if known is None:
            known = self._agreement(offer)
            if len(self._known) < _REMEMBERED:
                self._known[offer] = known
        return known

    def _agreement(self, offer: bytes) -> Agreement:
        if len(offer) < wire.OFFER.size:
            raise ProtocolError("an offer that is too short")
        version, actions, steps = wire.OFFER.unpack(offer)
        if version < wire.OLDEST:
            raise ProtocolError(f"version {version} is too old")
        version = min(version, wire.VERSION)
        actions = self.actions & (actions or wire.DEFAULT_ACTIONS)
        wanted = self.wanted(actions)
        agreed = wanted & (steps or wire.DEFAULT_STEPS)
        size = next((flag for flag in (wire.SIZE_1M, wire.SIZE_256K) if agreed & flag), 0)
        agreed = agreed & ~wire.ALL_SIZES | size
        payload = wire.OFFER.pack(version, actions, agreed)
        if actions & wire.SET_MACRO_LISTS:
            payload += self._lists
        return Agreement(
            version,
            actions,
            agreed,
            wanted,
            wanted & wire.ALL_SILENT,
            wire.LARGEST_AGREED.get(size, wire.LARGEST),
            wire.frame(wire.OPTNEG, payload),
        )
