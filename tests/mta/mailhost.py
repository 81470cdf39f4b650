"""A mail host as contrib/postfix has it: port 25, submission, and a service for a content filter."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from parts import sasl
from parts.postfix import HousedPostfix

CONTRIB = Path(__file__).parents[2] / "contrib/postfix"


class MailHost(HousedPostfix):
    """Postfix with accounts and contrib's services.

    main.cf has the lines `more`, or else contrib's; then smtpd runs in its chroot, where the accounts are.
    """

    def __init__(self, more: str = "") -> None:
        lines = (CONTRIB / "master.cf").read_text().splitlines()
        if more:  # the sockets of other milters are outside of the chroot
            lines = [re.sub(r"^(\S+ +inet +n +- +)y", r"\1n", line) for line in lines]
        front = f"n - {'n' if more else 'y'} - - smtpd"
        more = more or (CONTRIB / "main.cf").read_text()
        super().__init__(front=front, services=lines, more=more)

    def _configure(self, settings: Mapping[str, str]) -> None:
        key, certificate = self.directory / "key.pem", self.directory / "certificate.pem"
        subject = ["-subj", "/CN=mx.example.test", "-days", "2"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        accounts = sasl.make(self.directory / "sasl", "smtpd", "mx.example.test", self.queue)
        # `more` sets the filter.
        settings = {name: value for name, value in settings.items() if name != "smtpd_milters"}
        super()._configure(
            {
                **settings,
                "smtpd_tls_security_level": "may",
                "smtpd_tls_cert_file": str(certificate),
                "smtpd_tls_key_file": str(key),
                "smtpd_tls_auth_only": "yes",
                "smtpd_sasl_auth_enable": "yes",
                "smtpd_sasl_type": "cyrus",
                "smtpd_sasl_path": "smtpd",
                "smtpd_sasl_local_domain": "mx.example.test",
                "cyrus_sasl_config_path": str(accounts),
            }
        )
