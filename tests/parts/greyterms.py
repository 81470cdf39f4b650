"""The terms of a greylist as tests want them: the defaults of the configuration, but without its bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GreyTerms:
    """`hybridgrey.greylist.terms.Terms`, in any values: the configuration takes no window of one second."""

    retry_window: int = 172_800
    lifetime: int = 3_110_400
    ipv4_prefix: int = 24
    ipv6_prefix: int = 64
    auto_allow_after: int = 5
    auto_allow_interval: int = 0
    max_waiting: int = 0
