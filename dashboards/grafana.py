"""The one module that knows grafanalib: panels, variables and dashboards of the house.

A builder sets everything that `normal` does not: unit, colours, what to show when there
is nothing, and a description that ends with the names of the metrics it draws.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Final

import grafanalib.core as g

from .colours import colours_of
from .normal import DATASOURCE, Json, normalise
from .queries import metrics_in

Panel = Any
"""A panel of grafanalib's; it has no types."""
Variable = Any
Step = tuple[str, float]
"""A colour and the value from which it holds; the first one holds from below."""

COLUMNS: Final = 24
NO_TRAFFIC: Final = "no traffic"
NO_PRICE: Final = "no price"
AUTO: Final = "__auto"
"""A legend that Grafana makes of the labels."""
NEUTRAL: Final = (("blue", 0.0),)
Word = tuple[float, str]
"""A value, and what is shown in its place."""


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and what its series are called."""

    expr: str
    legend: str = AUTO
    reference: bool = False
    """It is there to be compared with: a dashed line."""


@dataclass(frozen=True, slots=True)
class Column:
    """A table's column, named by its query's legend.

    `words` stand for some values, and `empty` for none.
    """

    query: Query
    unit: str
    words: Sequence[Word] = ()
    empty: str = NO_TRAFFIC


@dataclass(frozen=True, slots=True)
class Row:
    """Lines of panels under a title; without a title it is the dashboard's head."""

    title: str
    lines: Sequence[tuple[int, Sequence[Panel]]]
    """Height in grid units, and panels that share the width evenly."""


def timeseries(
    title: str,
    text: str,
    queries: Sequence[Query],
    *,
    unit: str,
    stacked: bool = False,
    states: bool = False,
    empty: str = NO_TRAFFIC,
) -> Panel:
    """Lines over time; `stacked` for parts of a whole, `states` for 0 or 1."""
    return g.TimeSeries(
        **_common(title, text, queries),
        extraJson=_field(unit, empty=empty),
        unit=unit,
        valueMin=0,
        fillOpacity=80 if states else 25 if stacked else 8,
        lineInterpolation="stepAfter" if states else "linear",
        showPoints="never" if stacked or states else "auto",
        stacking={"group": "A", "mode": "normal" if stacked or states else "none"},
        tooltipMode="multi",
        tooltipSort="none" if stacked or states else "desc",
        overrides=[*_colours(queries), *_dashes(queries)],
    )


def stat(
    title: str,
    text: str,
    query: Query,
    *,
    unit: str,
    steps: Sequence[Step] = NEUTRAL,
    empty: str = NO_TRAFFIC,
    named: bool = False,
    words: Sequence[Word] = (),
) -> Panel:
    """Show the latest value, in the colour of its step, and what the query calls it.

    `named`: the series' name alone.
    """
    text_mode = "value" if query.legend == AUTO else "value_and_name"
    return g.Stat(
        **_common(title, text, [query]),
        extraJson=_field(unit, empty=empty, words=words),
        format=unit,
        noValue=empty,
        thresholds=_thresholds(steps),
        color={"mode": "thresholds"},
        colorMode="none" if steps == NEUTRAL and not named else "value",
        graphMode="none" if named else "area",
        textMode="name" if named else text_mode,
        overrides=_colours([query]),
    )


def gauge(
    title: str, text: str, query: Query, *, unit: str, steps: Sequence[Step]
) -> Panel:
    """Show the latest value of a share on a dial from 0 to 1."""
    return g.GaugePanel(
        **_common(title, text, [query]),
        extraJson=_field(unit),
        format=unit,
        min=0,
        max=1,
        thresholds=_thresholds(steps),
    )


def bars(title: str, text: str, query: Query, *, unit: str) -> Panel:
    """Show one bar per series, for the dashboard's time range as a whole."""
    return g.BarGauge(
        **_common(title, text, [query], instant=True),
        extraJson=_field(unit, color={"mode": "palette-classic"}, min=0),
    )


def heatmap(title: str, text: str, query: Query, *, unit: str) -> Panel:
    """Show a histogram's buckets over time."""
    return g.Heatmap(
        **_common(title, text, [query], format_="heatmap"), extraJson=_field(unit)
    )


def table(
    title: str, text: str, labels: dict[str, str], columns: Sequence[Column]
) -> Panel:
    """Show a line per combination of `labels` (and their titles), and the columns."""
    queries = [column.query for column in columns]
    names = labels | {
        f"Value #{ref}": query.legend
        for ref, query in zip(ascii_uppercase, queries, strict=False)
    }
    organise = {
        "excludeByName": {"Time": True},
        "indexByName": {name: i for i, name in enumerate(names)},
        "renameByName": names,
    }
    return g.Table(
        **_common(title, text, queries, format_="table", instant=True),
        extraJson=_field("short"),
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": organise},
        ],
        overrides=[
            _override(column.query.legend, *_shown(column)) for column in columns
        ],
    )


# --------------------------------------------------------------------------- variables


def datasource_variable() -> Variable:
    """Let people choose which Prometheus is asked."""
    return g.Template(
        name="datasource", label="Data source", type="datasource", query="prometheus"
    )


def query_variable(name: str, label: str, query: str) -> Variable:
    """Let people choose among what Prometheus has; all of it at first.

    All is `.*` and not the list of what there is, so that a side that is not there (the
    server, when it is somebody else's) leaves the other side's panels alone.
    """
    return g.Template(
        name=name,
        label=label,
        query=query,
        dataSource=DATASOURCE,
        includeAll=True,
        allValue=".*",
        multi=True,
        refresh=g.REFRESH_ON_TIME_RANGE_CHANGE,
    )


def choice_variable(
    name: str, label: str, options: dict[str, str], default: str
) -> Variable:
    """Let people choose one of `options`, which are values by their texts."""
    return g.Template(
        name=name,
        label=label,
        type="custom",
        query=", ".join(f"{text} : {value}" for text, value in options.items()),
        options=[
            {"selected": text == default, "text": text, "value": value}
            for text, value in options.items()
        ],
    )


def text_variable(name: str, label: str, default: str) -> Variable:
    """Let people type a value."""
    option = {"selected": True, "text": default, "value": default}
    return g.Template(
        name=name, label=label, type="textbox", query=default, default=default,
        options=[option],
    )  # fmt: skip


# -------------------------------------------------------------------------- dashboards


def dashboard(
    uid: str,
    title: str,
    text: str,
    *,
    rows: Sequence[Row],
    variables: Sequence[Variable],
) -> Json:
    """Lay the rows out and return the dashboard's JSON."""
    made = g.Dashboard(
        title=title,
        uid=uid,
        description=text,
        tags=["loadstone"],
        timezone="browser",
        refresh="5s",
        time=g.Time("now-15m", "now"),
        links=[
            g.DashboardLink(
                title="loadstone", tags=["loadstone"], includeVars=True, keepTime=True
            )
        ],
        templating=g.Templating(list=list(variables)),
        panels=list(_laid_out(rows)),
    ).auto_panel_ids()
    # The encoder's own way: everything grafanalib has tells its JSON itself.
    written = json.loads(json.dumps(made, default=lambda one: one.to_json_data()))
    return normalise(written)


def _laid_out(rows: Iterable[Row]) -> Iterable[Panel]:
    y = 0
    for row in rows:
        if row.title:
            yield g.RowPanel(title=row.title, gridPos=g.GridPos(1, COLUMNS, 0, y))
            y += 1
        for height, panels in row.lines:
            width = COLUMNS // len(panels)
            for i, panel in enumerate(panels):
                panel.gridPos = g.GridPos(height, width, i * width, y)
                yield panel
            y += height


def _common(
    title: str,
    text: str,
    queries: Sequence[Query],
    *,
    format_: str = "time_series",
    instant: bool = False,
) -> dict[str, Any]:
    found = {m for query in queries for m in metrics_in(query.expr)}
    names = sorted(m if isinstance(m, str) else m.wire_name for m in found)
    metrics = ", ".join(f"`{name}`" for name in names)
    return {
        "title": title,
        "description": f"{text}\n\nMetric{'s' * (len(names) > 1)}: {metrics}",
        "dataSource": DATASOURCE,
        "maxDataPoints": None,
        "targets": [
            g.Target(
                expr=query.expr,
                legendFormat=query.legend,
                refId=ref,
                format=format_,
                instant=instant,
                datasource=DATASOURCE,
            )
            for query, ref in zip(queries, ascii_uppercase, strict=False)
        ],
    }


def _field(
    unit: str, *, empty: str = NO_TRAFFIC, words: Sequence[Word] = (), **more: Any
) -> Json:
    mappings = _mappings(empty, words)
    defaults = {"unit": unit, "noValue": empty, "mappings": mappings, **more}
    return {"fieldConfig": {"defaults": defaults}}


def _mappings(empty: str, words: Sequence[Word]) -> list[Json]:
    nothing = {"match": "null+nan", "result": {"index": 0, "text": empty}}
    mappings: list[Json] = [{"type": "special", "options": nothing}]
    if words:
        named = {
            f"{value:g}": {"index": i, "text": text}
            for i, (value, text) in enumerate(words, 1)
        }
        mappings.append({"type": "value", "options": named})
    return mappings


def _shown(column: Column) -> Iterable[Json]:
    yield {"id": "unit", "value": column.unit}
    if column.words or column.empty != NO_TRAFFIC:
        yield {"id": "noValue", "value": column.empty}
        yield {"id": "mappings", "value": _mappings(column.empty, column.words)}


def _thresholds(steps: Sequence[Step]) -> list[Any]:
    return [g.Threshold(color, i, float(at)) for i, (color, at) in enumerate(steps)]


def _colours(queries: Sequence[Query]) -> list[Json]:
    return [
        _override(
            name, {"id": "color", "value": {"fixedColor": colour, "mode": "fixed"}}
        )
        for query in queries
        for name, colour in colours_of(query.legend)
    ]


def _dashes(queries: Sequence[Query]) -> Iterable[Json]:
    """Yield how references are drawn; their names' first word finds them."""
    dashes = {"dash": [10, 10], "fill": "dash"}
    for query in queries:
        if query.reference:
            yield {
                "matcher": {
                    "id": "byRegexp", "options": f"/^{query.legend.split()[0]} /",
                },
                "properties": [
                    {"id": "color", "value": {"fixedColor": "text", "mode": "fixed"}},
                    {"id": "custom.fillOpacity", "value": 0},
                    {"id": "custom.lineStyle", "value": dashes},
                ],
            }  # fmt: skip


def _override(name: str, *properties: Json) -> Json:
    return {
        "matcher": {"id": "byName", "options": name},
        "properties": list(properties),
    }
