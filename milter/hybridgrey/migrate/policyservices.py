"""Policy services in Postfix's restrictions: which of them greylists, and what is to be said of another.

Pure.
"""

from __future__ import annotations

import re
from typing import Final

from hybridgrey.migrate.found import Found
from hybridgrey.migrate.maincf import Text, words

STAYS: Final = "leave it in main.cf, Postfix goes on doing it"

_GREYLISTERS: Final = re.compile(r"[a-z]*grey[a-z]*|\bgld\b", re.IGNORECASE)
_PORTS: Final = {"10023": "postgrey", "60000": "postgrey", "2501": "sqlgrey", "2525": "gld"}
_WEIGHTS: Final = "it scores DNS lists: give those of policyd-weight.conf weights in a rule with a threshold"
_OTHER_SERVICES: Final = {
    "policyd-weight": _WEIGHTS,
    "12525": f"the port of policyd-weight; {_WEIGHTS}",
    "spf": f"an SPF check; {STAYS}",
}


def convert(line: int, shown: str, argument: str, *, warns: bool) -> Found:
    """A greylister becomes a greylist rule; any other policy service stays where it is."""
    endpoint = argument.strip("{} \t")
    server = words(Text(endpoint, (0,) * len(endpoint)))
    place = server[0].text if server else ""
    for sign, why in _OTHER_SERVICES.items():
        if sign in place:
            return Found(line, shown, notes=(f"not taken over: {why}",))
    port = place.rpartition(":")[2]
    if name := _GREYLISTERS.search(place):
        note = f"known by its name, {name[0]}"
    elif place.startswith("inet:") and port in _PORTS:
        note = f"known by the port of {_PORTS[port]}"
    else:
        return Found(line, shown, notes=(f"no greylister that is known here; {STAYS}",))
    if warns:
        note += "; warn_if_reject before it has no effect on greylisting here"
    return Found(line, shown, {"name": "the rest", "action": "greylist"}, (note,))
