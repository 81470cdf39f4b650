"""libmilter and `protocol.wire` mean the same by their numbers."""

from __future__ import annotations

import pytest

import milter
from hybridgrey.protocol import wire

SAME = {
    "ADDHDRS": wire.ADD_HEADERS,
    "CHGHDRS": wire.CHANGE_HEADERS,
    "SETSYMLIST": wire.SET_MACRO_LISTS,
    "P_NOHELO": wire.NO_HELO,
    "P_NOHDRS": wire.NO_HEADERS,
    "P_NOBODY": wire.NO_BODY,
    "P_NOEOH": wire.NO_END_OF_HEADERS,
    "P_NODATA": wire.NO_DATA,
    "P_NOUNKNOWN": wire.NO_UNKNOWN,
    "P_NR_CONN": wire.SILENT_CONNECT,
    "P_NR_HELO": wire.SILENT_HELO,
    "P_NR_MAIL": wire.SILENT_MAIL,
    "P_NR_HDR": wire.SILENT_HEADER,
    "M_CONNECT": wire.Stage.CONNECT,
    "M_ENVFROM": wire.Stage.MAIL,
    "M_ENVRCPT": wire.Stage.RCPT,
}


@pytest.mark.parametrize(("name", "number"), SAME.items())
def test_numbers(name: str, number: int) -> None:
    """A session's terms are of `wire`; libmilter is given them as they are."""
    assert getattr(milter, name) == number
