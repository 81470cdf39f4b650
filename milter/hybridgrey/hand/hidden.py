"""Addresses that the store is not to have in clear: HMACs of a ``key_secret``."""

from __future__ import annotations

import base64
import hmac
from typing import Final

_BYTES: Final = 16


def hidden(secret: bytes, purpose: bytes, text: bytes) -> bytes:
    """A text as 22 characters; with another `purpose` the same text looks different."""
    digest = hmac.digest(secret, purpose + b"\0" + text, "sha256")
    return base64.urlsafe_b64encode(digest[:_BYTES]).rstrip(b"=")
