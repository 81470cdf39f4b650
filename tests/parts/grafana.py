"""A dashboard of Grafana's as the tests read it: its parts with their types, and its queries.

`load` refuses what the models do not know; what they leave open (`options`, `fieldConfig`) is Grafana's own
schema to check, as the package grafana-foundation-sdk has it: `unknown_to_grafana`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as schema
from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DataSource(_Model):
    """Where a query goes; all but Grafana's own annotations: the variable."""

    type: Literal["prometheus", "grafana"]
    uid: Literal["${datasource}", "-- Grafana --"]


class Place(_Model):
    """Where a panel lies, on a grid of 24 columns."""

    h: int = Field(gt=0)
    w: int = Field(gt=0, le=24)
    x: int = Field(ge=0, lt=24)
    y: int = Field(ge=0)


class Target(_Model):
    """One query of a panel."""

    ref: str = Field(alias="refId", pattern="^[A-Z]$")
    datasource: DataSource
    editor: Literal["code"] = Field(alias="editorMode")
    expr: str = Field(min_length=1)
    legend: str = Field(alias="legendFormat")
    range: bool
    instant: bool
    format: Literal["time_series", "heatmap", "table"] = "time_series"


class Panel(_Model):
    """A panel, or a row of them."""

    id: int
    type: Literal["row", "stat", "timeseries", "heatmap", "state-timeline", "table"]
    title: str = Field(min_length=1)
    place: Place = Field(alias="gridPos")
    description: str = ""
    datasource: DataSource | None = None
    targets: list[Target] = []
    field_config: dict[str, Any] = Field(default={}, alias="fieldConfig")
    options: dict[str, Any] = {}
    transformations: list[dict[str, Any]] = []
    collapsed: bool = False
    panels: list[Any] = Field(default=[], max_length=0)


class Annotation(_Model):
    """Marks in all graphs."""

    name: str
    datasource: DataSource
    enable: bool
    hide: bool
    color: str = Field(alias="iconColor")
    type: str = ""
    built_in: int = Field(default=0, alias="builtIn")
    expr: str = ""
    step: str = ""
    title: str = Field(default="", alias="titleFormat")
    text: str = Field(default="", alias="textFormat")
    tags: str = Field(default="", alias="tagKeys")
    at_value: bool = Field(default=False, alias="useValueForTime")


class Annotations(_Model):
    """The annotations, in Grafana's wrapping."""

    list: list[Annotation]


class VariableQuery(_Model):
    """What a variable asks the data source."""

    query: str
    ref: str = Field(alias="refId")


class Variable(_Model):
    """A choice at the top of the dashboard."""

    name: str
    label: str
    type: Literal["datasource", "query"]
    query: str | VariableQuery
    datasource: DataSource | None = None
    current: dict[str, Any]
    hide: int
    include_all: bool = Field(alias="includeAll")
    all_value: str = Field(default="", alias="allValue")
    multi: bool
    options: list[Any] = Field(max_length=0)
    refresh: int
    regex: str
    keep_out_of_url: bool = Field(alias="skipUrlSync")
    sort: int = 0


class Variables(_Model):
    """The variables, in Grafana's wrapping."""

    list: list[Variable]


class Span(_Model):
    """The time that is shown at first."""

    start: str = Field(alias="from")
    end: str = Field(alias="to")


class Dashboard(_Model):
    """All of it. Without an `id`: that is the database's of one Grafana."""

    uid: str
    title: str
    description: str
    tags: list[str]
    editable: bool
    tooltip: int = Field(alias="graphTooltip")
    schema_version: int = Field(alias="schemaVersion")
    version: int
    week_start: str = Field(alias="weekStart")
    timezone: str
    fiscal: int = Field(alias="fiscalYearStartMonth")
    live: bool = Field(alias="liveNow")
    refresh: str
    time: Span
    timepicker: dict[str, Any]
    links: list[Any]
    annotations: Annotations
    templating: Variables
    panels: list[Panel]

    def queries(self) -> Iterator[tuple[str, str]]:
        """Each query with where it stands: the panels' and the annotations'."""
        for panel in self.panels:
            yield from ((f"{panel.title}/{target.ref}", target.expr) for target in panel.targets)
        yield from ((f"mark {one.name}", one.expr) for one in self.annotations.list if one.expr)


def load(path: Path) -> Dashboard:
    """Read a dashboard; pydantic's ValidationError for anything unexpected."""
    return Dashboard.model_validate_json(path.read_text())


def unknown_to_grafana(path: Path) -> list[str]:
    """The places that do not come through Grafana's own models as they are."""
    plugins.register_default_plugins()
    given = json.loads(path.read_text())
    back = json.loads(JSONEncoder(sort_keys=True).encode(schema.Dashboard.from_json(given)))
    return list(_lost(given, back, ""))


def _lost(given: Any, back: Any, place: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(back, dict):
        for key, value in given.items():
            if key in back:
                yield from _lost(value, back[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}"
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for number, (one, other) in enumerate(zip(given, back, strict=True)):
            yield from _lost(one, other, f"{place}[{number}]")
    elif given != back:
        yield place
