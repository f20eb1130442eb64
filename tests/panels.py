"""The queries of the committed dashboards, ready to be asked."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dashboards.files import BOARDS, JSON_HOME, PROVISIONING

RULES: Final = PROVISIONING / "prometheus" / "loadstone.rules.yml"
_VARIABLE: Final = re.compile(r"\$(\w+)")


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of one panel."""

    board: str
    panel: str
    ref: str
    expr: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.board}: {self.panel} ({self.ref})"


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The query of a variable: the values of a label of some series."""

    board: str
    variable: str
    series: str
    label: str


def read_boards() -> dict[str, dict[str, Any]]:
    """Return the committed dashboards by the names of their files."""
    return {name: json.loads((JSON_HOME / name).read_text()) for name in BOARDS}


def panel_queries() -> Iterator[PanelQuery]:
    """Yield every query of every panel."""
    for name, board in read_boards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield PanelQuery(
                    name,
                    panel["title"],
                    target["refId"],
                    target["expr"],
                    target["instant"],
                )


def variable_queries() -> Iterator[LabelValues]:
    """Yield the query of every variable that asks Prometheus."""
    for name, board in read_boards().items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                inner = variable["query"].removeprefix("label_values(")[:-1]
                series, _, label = inner.rpartition(", ")
                yield LabelValues(name, variable["name"], series, label)


def chosen() -> dict[str, str]:
    """Return what the variables begin with: the first choice, and all of the rest."""
    values = {"__rate_interval": "5s", "__range": "15s"}
    for board in read_boards().values():
        for variable in board["templating"]["list"]:
            if variable["type"] in ("custom", "textbox"):
                values[variable["name"]] = variable["current"]["value"]
            elif variable["type"] == "query":
                values[variable["name"]] = variable["allValue"]
    return values


def filled(expr: str, values: Mapping[str, str]) -> str:
    """Put the values of the variables into a query, as Grafana does."""
    return _VARIABLE.sub(lambda found: values[found[1]], expr)
