"""What is known of the pools: the last good state of each domain, as bytes for a file and for the workers.

A *state* has a domain's networks and when DNS last confirmed them.  One is `whole` when they are all; of a
client that is in none of the others it is not known whether it is in the pool.  `renewed` says what becomes
of a state with a new answer: a failure of DNS changes nothing, and a record that is suddenly gone or broken
is believed after `GRACE`, for it is most often a slip of somebody who mends it soon.

Pure.  Whatever is found in a file, reading it gives states within these bounds, or ValueError.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from hybridgrey.spf.pools import MAX_NETWORKS, Pool
from hybridgrey.spf.proof import DEFAULT, Widths
from hybridgrey.spf.question import MAX_NAME

GRACE: Final = 2 * 86400.0
"""Seconds for which the last good state is kept against a record that is gone or wrong."""
MAX_DOMAINS: Final = 4096
MAX_TOTAL: Final = 65536
"""Networks of all pools together; the forty largest senders have some thousand."""
MAX_BYTES: Final = 4 << 20
"""Larger ones are neither written nor read; so many networks have less."""
_VERSION: Final = 1

Network: TypeAlias = tuple[bytes, int]
"""The first address of a network, 4 or 16 octets, and its prefix length."""


class State(NamedTuple):
    """A domain's networks; `at`: Unix time at which DNS has confirmed them."""

    networks: tuple[Network, ...]
    at: float
    whole: bool = True


States: TypeAlias = Mapping[str, State]
NONE: Final[States] = MappingProxyType({})


def renewed(old: State | None, pool: Pool, now: float) -> State | None:
    """The state after an answer; None where there was none and still nothing is known.

    `now`: Unix time.
    """
    new = State(tuple(packed(network) for network in pool.networks), now, whole=not pool.partial)
    if not pool.problem:
        return new
    if pool.partial:
        # Nothing is better known than before, but for what is seen of a domain for the first time.
        return new if new.networks and (old is None or not old.whole) else old
    return old if old is not None and old.networks and now - old.at < GRACE else new


def packed(network: IPv4Network | IPv6Network) -> Network:
    """A network in our form."""
    return network.network_address.packed, network.prefixlen


def text_of(network: Network) -> str:
    """``192.0.2.0/24``."""
    address, prefix = network
    return f"{socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)}/{prefix}"


def dump(states: States) -> bytes:
    """The bytes of states, those of the first domains where there are too many networks."""
    room = MAX_TOTAL
    pools: dict[str, Any] = {}
    for domain, state in states.items():
        if len(state.networks) > room:
            continue
        room -= len(state.networks)
        networks = [text_of(network) for network in state.networks]
        pools[domain] = {"at": int(state.at), "whole": state.whole, "networks": networks}
    return json.dumps({"version": _VERSION, "pools": pools}).encode()


def parse(data: bytes, widths: Widths = DEFAULT) -> dict[str, State]:
    """The states that bytes hold; what is wrong in itself is left out.  Raises ValueError for all else."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        raise ValueError("is no state of pools")
    pools = found.get("pools")
    if not isinstance(pools, dict) or len(pools) > MAX_DOMAINS:
        raise ValueError("is no state of pools")
    states: dict[str, State] = {}
    room = MAX_TOTAL
    for domain, one in pools.items():
        state = _state(one, widths)
        if state is not None and len(domain) <= MAX_NAME and len(state.networks) <= room:
            states[domain] = state
            room -= len(state.networks)
    return states


def _state(found: Any, widths: Widths) -> State | None:  # noqa: ANN401 (as JSON has it)
    if not isinstance(found, dict):
        return None
    at, whole, networks = found.get("at"), found.get("whole"), found.get("networks")
    if type(at) is not int or not 0 <= at < 1 << 40 or not isinstance(whole, bool):
        return None
    if not isinstance(networks, list) or len(networks) > MAX_NETWORKS:
        return None
    return _read(networks, widths, at, whole=whole)


def _read(texts: Iterable[Any], widths: Widths, at: float, *, whole: bool) -> State | None:
    """A state of these networks; None if one is none, or so wide that it would let in the world."""
    networks: list[Network] = []
    for text in texts:
        network = _network(text) if isinstance(text, str) else None
        if network is None or network[1] < widths.widest(8 * len(network[0])):
            return None
        networks.append(network)
    return State(tuple(networks), at, whole)


def _network(text: str) -> Network | None:
    address, _, prefix = text.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    try:
        found = socket.inet_pton(family, address)
    except (OSError, ValueError):  # ValueError: a NUL
        return None
    if not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3 and int(prefix) <= bits):
        return None
    below = (1 << (bits - int(prefix))) - 1
    return None if int.from_bytes(found, "big") & below else (found, int(prefix))
