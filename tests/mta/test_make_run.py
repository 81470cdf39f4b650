"""The sample config as `make run` starts it, in a network of its own: the real ports, no real list asked."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from mta.conftest import require
from parts import namespace
from parts.base import Part
from parts.namespace import Namespace

pytestmark = pytest.mark.mta
TREE = Path(__file__).parents[2]


class Run(Part):
    """contrib/setup/run inside a namespace, with this test's folder for its state."""

    def __init__(self, inside: Namespace) -> None:
        super().__init__()
        self.inside = inside

    def command(self):
        return self.inside.inside([TREE / "contrib/setup/run"])

    def environment(self):
        program = Path(sys.executable).with_name("hybridgrey")
        return {**super().environment(), "STATE": str(self.directory / "state"), "HYBRIDGREY": str(program)}

    def ready(self):
        return '"event":"ready"' in self.log_text()


def test_make_run_serves_on_an_embedded_store():
    """It says what to add to main.cf, gets ready with the sample config, keeps state, and ends on SIGTERM."""
    require(namespace.missing())
    with Namespace() as inside, Run(inside) as daemon:
        text = daemon.log_text()
        assert "smtpd_milters = { inet:127.0.0.1:8893," in text
        assert text.index("smtpd_milters") < text.index('"event":"ready"')
        assert list((daemon.directory / "state/store").iterdir())
        assert "Traceback" not in text
        assert daemon.stop(signal.SIGTERM) == 0
