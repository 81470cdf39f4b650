"""Accounts for SMTP AUTH: a password file of Cyrus SASL and the configuration that leads a server to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

LOGIN, PASSWORD = "joe", "correct horse"
CONFIG = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {database}
mech_list: PLAIN LOGIN
"""


def make(folder: Path, application: str, realm: str, chroot: Path = Path("/")) -> Path:
    """A folder with `application`'s configuration, in which LOGIN has the PASSWORD; returns it.

    The accounts lie in the folder, or for a server that changes its root in etc/sasldb2 below that.
    """
    folder.mkdir()
    database = folder / "accounts" if chroot == Path("/") else chroot / "etc/sasldb2"
    database.parent.mkdir(exist_ok=True)
    command: list[str | Path] = ["saslpasswd2", "-p", "-c", "-f", database, "-u", realm, LOGIN]
    subprocess.run(command, input=PASSWORD.encode(), check=True, capture_output=True)
    database.chmod(0o644)  # read as the MTA's user
    seen = Path("/") / database.relative_to(chroot)
    (folder / f"{application}.conf").write_text(CONFIG.format(database=seen))
    return folder
