"""OpenDKIM, another milter, to stand before or after ours: it verifies, and signs what local clients send.

Its keys are its own, and the domain's public one comes from a file in place of DNS.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from parts.base import Part, accepts

DOMAIN, SELECTOR = "signed.example", "test"
CONFIG = """\
Mode sv
Background no
Syslog no
Domain {domain}
Selector {selector}
KeyFile {directory}/key
TestDNSData file:{directory}/dns
InternalHosts 127.0.0.1
AuthservID mx.example.test
RequireSafeKeys no
AlwaysAddARHeader yes
Socket local:{socket}
"""


def missing() -> str:
    """Why OpenDKIM cannot be run here; empty when it can."""
    return "" if shutil.which("opendkim") else "opendkim is not installed"


class OpenDkim(Part):
    """The milter; `spec` for an MTA."""

    def __init__(self) -> None:
        super().__init__()
        self.address = str(self.directory / "socket")
        key = self.directory / "key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], capture_output=True, check=True)
        command = ["openssl", "rsa", "-in", str(key), "-pubout"]
        pem = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        public = "".join(line for line in pem.splitlines() if "-" not in line)
        record = f"{SELECTOR}._domainkey.{DOMAIN}"
        (self.directory / "dns").write_text(f"{record} v=DKIM1; k=rsa; p={public}\n")
        values = {"domain": DOMAIN, "selector": SELECTOR, "directory": self.directory}
        (self.directory / "config").write_text(CONFIG.format(**values, socket=self.address))

    @property
    def spec(self) -> str:
        """libmilter's and both MTAs' way to write the address."""
        return f"unix:{self.address}"

    def command(self) -> list[str]:
        return ["opendkim", "-f", "-x", str(self.directory / "config")]

    def ready(self) -> bool:
        if not accepts(self.address):
            return False
        Path(self.address).chmod(0o777)  # writable for the MTA's user
        return True

    def close(self) -> None:
        """Not by SIGTERM: libmilter looks each five seconds whether it is to end."""
        self.kill()
        super().close()
