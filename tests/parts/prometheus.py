"""A real Prometheus that reads daemons: `Prometheus([address, ...], rules=FILE)`, and what PromQL names.

    with Prometheus(["127.0.0.1:9893"]) as prometheus:
        assert prometheus.query("up")[0].labels["instance"] == "127.0.0.1:9893"

It looks at its targets twice a second and keeps what it saw in its folder, on a loopback port.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql

from parts.base import LOOPBACK, Part, PartError, free_port

JOB = "hybridgrey"
SCRAPE_LABELS = frozenset({"instance", "job"})
CONFIG = """\
global: {{scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms}}
rule_files: {rules}
scrape_configs:
  - job_name: {job}
    static_configs: [{{targets: {targets}}}]
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of an answer: its labels, and its values from old to new without those that are no number."""

    labels: Mapping[str, str]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        return self.values[-1]


@dataclass(frozen=True, slots=True)
class Reads:
    """What a query reads: each metric with its label conditions, and each grouping with what it groups."""

    metrics: tuple[tuple[str, Mapping[str, str]], ...]
    groupings: tuple[tuple[frozenset[str], frozenset[str]], ...]
    """(labels of a by() or on(), names of the metrics below it)"""


class Prometheus(Part):
    """The server; `targets` are host:port, `rules` a file of alerts."""

    def __init__(self, targets: Sequence[str], rules: Path | None = None) -> None:
        super().__init__()
        self.port = free_port()
        files = [str(rules)] if rules else []
        text = CONFIG.format(rules=json.dumps(files), job=JOB, targets=json.dumps(list(targets)))
        (self.directory / "prometheus.yml").write_text(text)

    def command(self) -> list[str | Path]:
        server = shutil.which("prometheus")
        if server is None:
            raise PartError("prometheus is not installed")
        return [
            server,
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self.port}",
        ]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def api(self, path: str, **parameters: object) -> Any:
        """What /api/v1/PATH answers, its `data`; PartError with Prometheus's words when it refuses."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(
                f"http://{LOOPBACK}:{self.port}/api/v1/{path}?{query}", timeout=30
            ) as a:
                return json.load(a)["data"]
        except urllib.error.HTTPError as error:
            raise PartError(f"{path}?{query}: {error.read().decode()}") from None

    def query(self, expression: str, seconds: float = 10.0) -> list[Series]:
        """The answer over the last `seconds`, series without any number left out."""
        now = time.time()
        data = self.api("query_range", query=expression, start=now - seconds, end=now, step=0.5)
        found = [
            Series(one["metric"], tuple(n for _, text in one["values"] if math.isfinite(n := float(text))))
            for one in data["result"]
        ]
        return [series for series in found if series.values]

    def rules(self) -> dict[str, dict[str, Any]]:
        """Alert name to rule, as the server has loaded and evaluated it."""
        return {rule["name"]: rule for group in self.api("rules")["groups"] for rule in group["rules"]}


def reads(expression: str) -> Reads:
    """What a PromQL expression names."""
    metrics: list[tuple[str, Mapping[str, str]]] = []
    groupings: list[tuple[frozenset[str], frozenset[str]]] = []

    def walk(node: Any) -> frozenset[str]:
        """Collect what is below a node; the names of the metrics there."""
        if isinstance(node, promql.VectorSelector):
            metrics.append((str(node.name), {str(m.name): str(m.value) for m in node.matchers.matchers}))
            return frozenset({str(node.name)})
        below = [walk(child) for child in _children(node)]
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            groupings.extend((frozenset(node.modifier.labels), found) for found in below)
        elif isinstance(node, promql.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            groupings.extend((frozenset(node.modifier.matching.labels), found) for found in below)
        return frozenset().union(*below)

    walk(promql.parse(expression))
    return Reads(tuple(metrics), tuple(groupings))


def _children(node: Any) -> list[Any]:
    if isinstance(node, promql.Call):
        return list(node.args)
    names = ("lhs", "rhs", "expr", "vector_selector")
    return [getattr(node, name) for name in names if hasattr(node, name)]
