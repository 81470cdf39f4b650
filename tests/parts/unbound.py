"""A real unbound: a caching resolver in front of the lists, as most mail hosts have one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import dns.exception
import dns.message
import dns.query

from parts.base import LOOPBACK, Part, free_port

CONFIG = """\
server:
  interface: {host}@{port}
  access-control: 127.0.0.0/8 allow
  do-not-query-localhost: no
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: "{directory}/pid"
  use-syslog: no
  num-threads: 1
  do-ip6: no
  module-config: "iterator"
  qname-minimisation: no
  root-hints: ""
  local-zone: "." static
  local-data: ". 60 IN SOA ns. hostmaster. 1 60 60 60 60"
{known}
{insecure}
remote-control:
  control-enable: no
{stubs}
"""


class Unbound(Part):
    """`Unbound({"bl.test": rbldnsd.address})`: each zone is asked at its server, "HOST:PORT".

    All other names do not exist: no test asks the world.
    """

    def __init__(self, stubs: Mapping[str, str]) -> None:
        super().__init__()
        self.host, self.port = LOOPBACK, free_port()
        self.config = self.directory / "unbound.conf"
        self.config.write_text(
            CONFIG.format(
                host=self.host,
                port=self.port,
                directory=self.directory,
                known="\n".join(f'  local-zone: "{zone}." transparent' for zone in stubs),
                insecure="\n".join(f'  domain-insecure: "{zone}"' for zone in stubs),
                stubs="\n".join(self._stub(zone, server) for zone, server in stubs.items()),
            )
        )

    @staticmethod
    def _stub(zone: str, server: str) -> str:
        address = server.replace(":", "@")
        return f'stub-zone:\n  name: "{zone}"\n  stub-addr: {address}\n  stub-prime: no'

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def command(self) -> list[str]:
        return ["unbound", "-d", "-c", str(self.config)]

    def ready(self) -> bool:
        query = dns.message.make_query("localhost", "A")
        with contextlib.suppress(dns.exception.Timeout, OSError):
            dns.query.udp(query, self.host, timeout=0.3, port=self.port)
            return True
        return False

    def lookup(self, name: str, kind: str = "A") -> list[str]:
        """The texts of the answer's records."""
        answer = dns.query.udp(dns.message.make_query(name, kind), self.host, timeout=5, port=self.port)
        return sorted(record.to_text() for rrset in answer.answer for record in rrset)
