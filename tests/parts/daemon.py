"""The daemon itself: `hybridgrey run` as a process with a config of the test's making.

    with Daemon({"store": {"url": redis.url}, "rule": [...]}, files={"allow": "192.0.2.1"}) as daemon:
        ... Postfix(daemon.spec) or MilterPeer(daemon.address) ...
        assert daemon.events("verdict")[-1]["action"] == "greylist"

The config is a dict that follows the TOML; what it leaves out has the tests' default (`DEFAULTS`), or else
the product's. Leaving a daemon fails when its log has a traceback, unless `crashes`.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from parts import refusingdns
from parts.base import ENGINE, LOOPBACK, Part, PartError, accepts, free_port, wait_until
from parts.namespace import Namespace

Settings = Mapping[str, Any]
DEFAULTS: dict[str, Any] = {
    "engine": ENGINE,
    "workers": 2,
    "drain_timeout": "5s",
    "greylist": {"delay": "2s"},
    "dns": {"timeout": "1s"},
    "metrics": {"listen": ""},
    "log": {"level": "debug", "format": "json"},
}


def toml(settings: Settings) -> str:
    """The text of a config file: scalars first, then tables, then arrays of tables."""
    plain: list[str] = []
    tables: list[str] = []
    rows: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            tables += [f"\n[{_name(key)}]", *_table(key, value)]
        elif isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            for row in value:
                rows += [f"\n[[{_name(key)}]]", *(f"{_name(k)} = {_value(v)}" for k, v in row.items())]
        else:
            plain.append(f"{_name(key)} = {_value(value)}")
    return "\n".join([*plain, *tables, *rows]) + "\n"


def _table(path: str, table: Settings) -> list[str]:
    lines = [f"{_name(key)} = {_value(v)}" for key, v in table.items() if not isinstance(v, Mapping)]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += [f"\n[{_name(path)}.{_name(key)}]", *_table(key, value)]
    return lines


def _name(key: str) -> str:
    return key if key.replace("_", "").isalnum() else json.dumps(key)


def _value(value: object) -> str:
    # JSON's strings, numbers, booleans and lists of them are TOML's.
    return json.dumps(value, ensure_ascii=False)


def merged(below: Settings, above: Settings) -> dict[str, Any]:
    """`above` over `below`, tables key by key."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merged(old, value)
        result[key] = value
    return result


class Daemon(Part):
    """The process; `spec` for MTAs and `address` for MilterPeer."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        files: Mapping[str, str] | None = None,
        unix: bool | Path = False,
        crashes: bool = False,
        namespace: Namespace | None = None,
    ) -> None:
        super().__init__()
        self._namespace = namespace
        self.address: tuple[str, int] | str = (LOOPBACK, free_port())
        if unix:
            self.address = str(unix if isinstance(unix, Path) else self.directory / "milter.sock")
        self.config = self.directory / "hybridgrey.toml"
        self.crashes = crashes
        self._starts = 0
        self.configure(settings or {}, files)

    def configure(self, settings: Settings, files: Mapping[str, str] | None = None) -> None:
        """Write the config and the files beside it; takes effect at the next start or reload."""
        for name, text in (files or {}).items():
            (self.directory / name).write_text(text)
        self.settings = merged({"listen": self.spec, **self.defaults()}, settings)
        self.config.write_text(toml(self.settings))

    def defaults(self) -> Settings:
        """What the tests' daemons have if nothing else is said.

        SPF is asked for whoever is greylisted, and no test asks the world.
        """
        return merged(DEFAULTS, {"dns": {"nameservers": [refusingdns.address()]}})

    def environment(self) -> dict[str, str]:
        """With the folder of state where it is on a host that has no ``/var/lib/hybridgrey``."""
        pid_file = self.directory / self.settings.get("pid_file", "hybridgrey.pid")
        return {**super().environment(), "STATE_DIRECTORY": str(pid_file.parent)}

    @property
    def spec(self) -> str:
        """libmilter's and both MTAs' way to write the address."""
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        return f"inet:{self.address[1]}@{self.address[0]}"

    def command(self) -> list[str | Path]:
        command: list[str | Path] = [
            Path(sys.executable).with_name("hybridgrey"),
            "run",
            "-c",
            self.config,
        ]
        return self._namespace.inside(command) if self._namespace else command

    def start(self) -> None:
        self._starts = len(self.events("ready"))  # the log goes on where the last start has left it
        super().start()

    def ready(self) -> bool:
        # What listens in a namespace is not seen from outside.
        return len(self.events("ready")) > self._starts and (
            self._namespace is not None or accepts(self.address)
        )

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """The log lines of one event, or all, oldest first."""
        whole = self.log_text().split("\n")[:-1]  # the last line may still be on its way
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if name in ("", line["event"])]

    def await_events(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """The log lines of one event, when there are at least `count`."""
        wait_until(lambda: len(self.events(name)) >= count, f"{count} events {name!r} in the log")
        return self.events(name)

    def verdict(self, recipient: str) -> dict[str, Any]:
        """The last verdict on a recipient, given without brackets."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.events("verdict") if one["recipient"].strip("<>") == recipient]

        wait_until(found, f"a verdict on {recipient}")
        return found()[-1]

    def reload(self) -> None:
        """Ask for the new config and return when the daemon has taken or refused it."""
        known = {"reloaded", "reload failed, the old configuration stays", "bad configuration"}
        before = sum(one["event"] in known for one in self.events())
        self.send_signal(signal.SIGHUP)
        wait_until(lambda: sum(one["event"] in known for one in self.events()) > before, "reload")

    def processes(self) -> list[int]:
        """The process ids of the master's children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        text = self.log_text()
        super().__exit__(kind, error, trace)
        # "traceback" is a key of the log's own; the other is Python's.
        if error is None and not self.crashes and re.search(r'"traceback":|^Traceback ', text, re.MULTILINE):
            raise PartError(f"a traceback in the daemon's log\n{text[-6000:]}")
