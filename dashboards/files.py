"""What is made of the dashboards, and whether what lies on disk is still that.

Grafana's JSON, and in the documentation a table that says of each panel what it shows.
Both are committed, so that nobody needs Python to use them; `stale` keeps them true.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from loadstone.errors import LoadstoneError

from .cost import cost
from .latency import latency
from .load import load
from .normal import Json
from .overview import overview
from .queries import RATE
from .rack import rack
from .rag import rag
from .server import server

PROVISIONING: Final = Path(__file__).parent / "provisioning"
JSON_HOME: Final = PROVISIONING / "grafana" / "dashboards"
DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "dashboards.md"
"""Where the table of panels stands, in a checkout; an installed wheel has none."""

BOARDS: Final[dict[str, Callable[[], Json]]] = {
    "overview.json": overview,
    "latency.json": latency,
    "load.json": load,
    "server.json": server,
    "rack.json": rack,
    "cost.json": cost,
    "rag.json": rag,
}
_BEGIN: Final = "<!-- panels: `loadstone dashboards build` writes from here -->"
_END: Final = "<!-- panels: to here -->"
_SELECTOR: Final = re.compile(r"\{([^{}]*)\}")
_LABEL: Final = re.compile(r"\{\{(\w+)\}\}")
_QUANTILE: Final = re.compile(r"histogram_quantile\([\d.]+,")
_JOIN: Final = re.compile(
    r" \* on \([^()]*\) group_left \([^()]*\) \([^()]* > bool 0\)"
)
"""What only adds labels: where an engine is."""


def rendered(folder: Path, document: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Yield each file that is made of the dashboards, and its text.

    Raises `LoadstoneError` if the document has no place for the table.
    """
    boards = {name: build() for name, build in BOARDS.items()}
    for name, board in boards.items():
        yield folder / name, json.dumps(board, indent=2, sort_keys=True) + "\n"
    if document is not None:
        table = "\n".join(_tables(boards.values()))
        yield document, _with_table(document, table)


def stale(folder: Path, document: Path | None = None) -> list[Path]:
    """Return the files that are not what would be made now, or that nobody makes."""
    made = dict(rendered(folder, document))
    wrong = [path for path, text in made.items() if _text(path) != text]
    return wrong + sorted(set(folder.glob("*.json")) - set(made))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _with_table(document: Path, table: str) -> str:
    before, begin, rest = (_text(document) or "").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise LoadstoneError(
            f"{document} has no place for the table of panels",
            hint=f"it goes between the lines {_BEGIN} and {_END}",
        )
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def _tables(boards: Iterable[Json]) -> Iterator[str]:
    for board in boards:
        yield f"### {board['title']}\n\n{board['description']}\n"
        yield "| panel | metrics | formula | meaning |\n|---|---|---|---|"
        yield from (_line(p) for p in board["panels"] if p["type"] != "row")
        yield ""


def _line(panel: Json) -> str:
    meaning, _, metrics = panel["description"].rpartition("\n\n")
    cells = (
        panel["title"],
        metrics.partition(": ")[2].replace(", ", "<br>"),
        "<br>".join(_formulas(panel["targets"])),
        meaning,
    )
    return f"| {' | '.join(cells)} |"


def _formulas(targets: list[Json]) -> Iterator[str]:
    """Yield the panel's queries without its variables; quantiles of one shape once."""
    for shape, group in groupby(targets, key=lambda target: _shape(target["expr"])):
        alike = list(group)
        one = _shortened(alike[0]["expr"])
        legends = [target["legendFormat"] for target in alike]
        told = [_LABEL.sub(r"each \1", name) for name in legends if name[:2] != "__"]
        named = f"{', '.join(told)}: " if told and "{{le}}" not in legends else ""
        yield f"{named}`{shape if len(alike) > 1 else one}`"


def _shape(expr: str) -> str:
    return _QUANTILE.sub("histogram_quantile(q,", _shortened(expr))


def _shortened(expr: str) -> str:
    short = _SELECTOR.sub(_fixed, expr).replace(f"[{RATE}]", "[i]")
    return _JOIN.sub("", short)


def _fixed(selector: re.Match[str]) -> str:
    """Leave of a selector what is not a choice of the viewer."""
    kept = [m for m in selector[1].split(", ") if "=~" not in m]
    return f"{{{', '.join(kept)}}}" if kept else ""
