"""The secrets of a configuration, and texts without them.

`Secrets` replaces the passwords and list keys of one file wherever they turn up, the path of a key included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hybridgrey.config import store_url
from hybridgrey.config.rules import Raw
from hybridgrey.config.settings import Zone

MASK: Final = "********"

# A list key is one label of the zone's name (Spamhaus DQS: 26 letters and digits).  Where [zones] does not
# tell, a run of this length that mixes both is taken for a key; names of lists have none.
_KEY_LIKE = re.compile(r"(?<![a-z0-9])(?=[a-z]*[0-9])(?=[0-9]*[a-z])[a-z0-9]{16,}", re.IGNORECASE)
# Below this a secret is as likely to be part of an ordinary word; texts do not hold its value in any case.
_SHORTEST = 6


def key_like(zone: str) -> bool:
    """Whether a zone's name seems to hold a list key."""
    return bool(_KEY_LIKE.search(zone))


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of one file, each with what is shown instead."""

    shown: tuple[tuple[re.Pattern[str], str], ...]

    @classmethod
    def of(cls, raw: Raw) -> Secrets:
        """Find the secrets of a raw file, valid or not."""
        pairs = list(_zone_secrets(raw.get("zones")))
        store = raw.get("store")
        if isinstance(store, Mapping):
            url, key = store.get("url"), store.get("key_secret")
            pairs += [(s, MASK) for s in store_url.secrets(url)] if isinstance(url, str) else []
            pairs += [(key, MASK)] if isinstance(key, str) else []
        metrics = raw.get("metrics")
        password = metrics.get("password") if isinstance(metrics, Mapping) else None
        pairs += [(password, MASK)] if isinstance(password, str) else []
        pairs = [p for p in pairs if len(p[0]) >= _SHORTEST]
        pairs.sort(key=lambda p: -len(p[0]))
        return cls(tuple((re.compile(re.escape(s), re.IGNORECASE), shown) for s, shown in pairs))

    def hide(self, text: str) -> str:
        """The text without secrets."""
        for secret, shown in self.shown:
            # A function, because a replacement string would have its backslashes read.
            text = secret.sub(lambda _, shown=shown: shown, text)  # type: ignore[misc]
        return re.sub(r"//[^/\s]*@", f"//{MASK}@", _KEY_LIKE.sub(MASK, text))

    def hide_in(self, value: object) -> object:
        """The same for all strings of a table or list, its keys included; different keys stay different."""
        if isinstance(value, str):
            return self.hide(value)
        if isinstance(value, list | tuple):
            return [self.hide_in(v) for v in value]
        if isinstance(value, Mapping):
            out: dict[str, object] = {}
            for key, item in value.items():
                shown = self.hide(key)
                again = sum(k == shown or k.startswith(f"{shown} (") for k in out)
                out[f"{shown} ({again + 1})" if again else shown] = self.hide_in(item)
            return out
        return value


def _zone_secrets(zones: object) -> Iterator[tuple[str, str]]:
    """Names of zones that have a label, which is shown instead; and the long parts of such a name."""
    if not isinstance(zones, Mapping):
        return
    for name, zone in zones.items():
        if not isinstance(zone, Mapping) or (
            zone.keys() <= Zone.model_fields.keys() and not zone.get("label")
        ):
            continue
        label = zone.get("label")  # None beside an unknown key, which may be a misspelt label
        bare = name.strip().removesuffix(".")
        shown = label if isinstance(label, str) and label.isprintable() and bare not in label else MASK
        yield bare, shown
        known = set(shown.lower().split("."))
        yield from ((part, MASK) for part in bare.split(".") if len(part) >= 12 and part.lower() not in known)
