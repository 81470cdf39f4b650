"""The configurations that are compared: what people have, our defaults, and these with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import tomli_w

from hybridgrey.config.load import Config, load
from hybridgrey.config.rules import DEFAULT_RULES
from simulate.catalogue import POOLS

REST: Final[Mapping[str, object]] = {"name": "the rest", "action": "greylist"}
LISTS: Final = ("blocklists", "allowlists")


class Variant(NamedTuple):
    """A configuration and what it is called in the tables."""

    name: str
    document: Mapping[str, object]


def _of_lists(*names: str) -> list[Mapping[str, object]]:
    return [rule for rule in DEFAULT_RULES if rule["name"] in names]


def _plain(*lists: str) -> Mapping[str, object]:
    return {"greylist": {"sender_pools": False}, "rule": [*_of_lists(*lists), REST]}


def _without(*names: str, **greylist: object) -> Mapping[str, object]:
    return {"greylist": greylist, "rule": [rule for rule in DEFAULT_RULES if rule["name"] not in names]}


def _with(rule: Mapping[str, object], **greylist: object) -> Mapping[str, object]:
    """The defaults with a rule before the last."""
    return {"greylist": greylist, "rule": [*DEFAULT_RULES[:-1], rule, DEFAULT_RULES[-1]]}


PLAIN: Final = Variant("plain greylisting", _plain())
PLAIN_LISTED: Final = Variant("plain greylisting, blocklists", _plain("blocklists"))
HIERARCHY: Final = Variant("blocklists, allowlists, greylisting", _plain(*LISTS))
OURS: Final = Variant("hybridgrey's defaults", {})

COMPARED: Final[Sequence[Variant]] = (PLAIN, PLAIN_LISTED, HIERARCHY, OURS)
SWITCHED_OFF: Final[Sequence[Variant]] = (
    Variant("… without blocklists", _without("blocklists")),
    Variant("… without allowlists", _without("allowlists")),
    Variant("… without correspondents", _without("correspondents")),
    Variant("… without pools", _without("pools")),
    Variant("… without sender pools", _without(sender_pools=False)),
    Variant("… without credit of networks and domains", _without(auto_allow_after=0)),
)
TERMS: Final[Sequence[Variant]] = (
    *(Variant(f"… auto_allow_after = {n}", _without(auto_allow_after=n)) for n in (1, 2, 3, 10)),
    Variant('… auto_allow_interval = "0s"', _without(auto_allow_interval="0s")),
    *(Variant(f'… delay = "{text}"', _without(delay=text)) for text in ("1m", "3m", "10m", "15m")),
)
"""Other values of the greylist's terms."""
NAMELESS: Final = {"name": "nameless", "rdns": ["none", "generic"], "action": "greylist", "delay": "15m"}
PROVEN: Final = {"name": "SPF", "spf": ["pass"], "rdns": ["named"], "action": "accept"}
RULES: Final[Sequence[Variant]] = (
    Variant("… 15 minutes for clients without a name", _with(NAMELESS)),
    Variant("… accept SPF pass with a name", _with(PROVEN)),
)
"""Rules that are not among the defaults."""


def written(variants: Sequence[Variant], folder: Path) -> dict[str, Config]:
    """Write the configurations to a folder, and read them as the daemon does; by name."""
    (folder / "pools").write_text("\n".join(POOLS) + "\n")
    configs = {}
    for number, variant in enumerate(variants):
        path = folder / f"{number}.toml"
        path.write_text(tomli_w.dumps(dict(variant.document)))
        configs[variant.name] = load(path)
    return configs
