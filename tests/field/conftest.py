"""The row of MX hosts that the tests here share: started once, whole at the start of each test."""

from __future__ import annotations

import pytest

from mta.conftest import require
from parts import engines, mxrow
from parts.mxrow import Row

DELAY = 4.0
"""Seconds; long enough for an early retry to be early on a busy machine."""
SETTINGS = {
    "greylist": {"delay": f"{DELAY:g}s", "auto_allow_after": 0},
    # As the default, so that what is measured at a host that is cut off is what an admin gets.
    "store": {"timeout": "500ms"},
}
OWN = {"mx3": {"store": {"on_failure": "tempfail"}}}


@pytest.fixture(scope="package")
def row():
    require(mxrow.missing())
    own = {mx: {**OWN.get(mx, {}), "engine": engines.at("field", mx)} for mx in mxrow.MX_HOSTS}
    with Row(SETTINGS, own) as running:
        yield running
