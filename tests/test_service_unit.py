"""The systemd unit: understood by systemd's own checker, and in step with the daemon."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hybridgrey import cli, config

UNIT = Path(__file__).parent.parent / "contrib" / "systemd" / "hybridgrey.service"


def values(section):
    """The settings of a section."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return dict(parser[section])


def test_end_is_not_cut_short():
    """systemd waits for an end longer than open sessions may last, and only the master gets SIGTERM."""
    service = values("Service")
    assert int(service["TimeoutStopSec"]) > config.default().drain_timeout
    assert service["KillMode"] == "mixed"


def test_folders_are_the_defaults():
    """The folder that the unit makes is that of the default store; bad configurations are not tried again."""
    service = values("Service")
    url = config.default().store.url.get_secret_value()
    assert url == f"embedded:/var/lib/{service['StateDirectory']}"
    assert str(cli.EX_CONFIG) in service["RestartPreventExitStatus"].split()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    """Nothing in the unit is unknown to systemd or wrong."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/hybridgrey/bin/hybridgrey", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])
