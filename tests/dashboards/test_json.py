"""The committed JSON is what today's Grafana reads, so far as its types can tell."""

import json
import re
import warnings
from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from panels import read_boards

from dashboards.normal import normalise

with warnings.catch_warnings():
    # It would rather have the schema of Grafana 13's own API. grafanalib writes the
    # classic one, which every Grafana reads from files.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.models.dashboard import Dashboard

register_default_plugins()
READ = read_boards()
KINDS = {"row", "timeseries", "stat", "gauge", "bargauge", "heatmap", "table"}
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {value for name, value in vars(units).items() if name[0].isupper()}

boards = pytest.mark.parametrize("board", READ.values(), ids=READ.keys())


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the panels that draw something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def lost(ours: Any, theirs: Any, at: str = "") -> Iterator[str]:
    """Yield the places where `theirs` lacks something of ours, or has it otherwise."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs.get(key, "absent"), f"{at}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            yield f"{at}: {len(ours)} became {len(theirs)}"
        for i, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
            yield from lost(mine, other, f"{at}[{i}]")
    elif ours != theirs:
        yield f"{at}: {ours!r} became {theirs!r}"


def nulls(value: Any, *at: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield the places that hold null."""
    if value is None:
        yield at
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from nulls(inner, *at, key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from nulls(inner, *at, i)


@boards
def test_grafanas_own_types_read_and_write_it_without_a_loss(
    board: dict[str, Any],
) -> None:
    """Each key is one that Grafana's schema has, in its place and with its type."""
    back = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(board)))
    assert list(lost(board, back)) == []


def test_a_loss_would_be_seen() -> None:
    """The comparison above notices a key that Grafana does not know, and a change."""
    board = read_boards()["overview.json"]
    board["sharedCrosshair"] = True
    board["panels"][0]["fieldConfig"]["defaults"]["format"] = "s"
    back = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    assert [place.split(":")[0] for place in lost(board, back)] == [
        ".panels[0].fieldConfig.defaults.format",
        ".sharedCrosshair",
    ]


@boards
def test_it_has_the_shape_of_today(board: dict[str, Any]) -> None:
    """Schema 41, one crosshair, panels that are no Angular ones, nothing null."""
    assert board["schemaVersion"] == 41
    assert board["graphTooltip"] == 1
    assert {panel["type"] for panel in board["panels"]} <= KINDS
    # Only a threshold's base is null: it reaches down to minus infinity.
    assert {at[-3:] for at in nulls(board)} <= {("steps", 0, "value")}
    text = json.dumps(board)
    for dated in ('"rows"', "sharedCrosshair", "intervalFactor", "fieldOptions"):
        assert dated not in text


def test_ids_and_titles_are_each_their_own() -> None:
    """Links and bookmarks find one dashboard, and one panel on it."""
    assert len({board["uid"] for board in READ.values()}) == len(READ)
    assert len({board["title"] for board in READ.values()}) == len(READ)
    for board in READ.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)


@boards
def test_panels_lie_on_the_grid_and_not_on_each_other(board: dict[str, Any]) -> None:
    """Nothing is wider than the 24 columns, and no two panels share a cell."""
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)


@boards
def test_a_panel_is_wide_enough_to_be_read(board: dict[str, Any]) -> None:
    """A tile has an eighth of the width, and what is drawn over time a quarter."""
    for panel in panels(board):
        least = 3 if panel["type"] in {"stat", "gauge"} else 6
        assert panel["gridPos"]["w"] >= least, panel["title"]


@boards
def test_every_panel_asks_the_chosen_data_source(board: dict[str, Any]) -> None:
    """Panel, query and variable name the variable, with a type: no default is used."""
    for panel in panels(board):
        assert panel["datasource"] == PROMETHEUS
        assert all(target["datasource"] == PROMETHEUS for target in panel["targets"])
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["datasource"] == PROMETHEUS


@boards
def test_every_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    """A known unit, words for nothing, and a description that ends with the metrics."""
    for panel in panels(board):
        meaning, _, metrics = panel["description"].rpartition("\n\n")
        assert meaning.endswith(".")
        assert metrics.startswith(("Metric: `", "Metrics: `"))
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["noValue"]
        told = [defaults["unit"]] + [
            setting["value"]
            for override in panel["fieldConfig"]["overrides"]
            for setting in override["properties"]
            if setting["id"] == "unit"
        ]
        assert all(u in UNITS or u.startswith("count:") for u in told), told


@boards
def test_a_quantile_has_one_colour(board: dict[str, Any]) -> None:
    """Wherever a series is called p99, it is red."""
    seen = set()
    for panel in panels(board):
        for override in panel["fieldConfig"]["overrides"]:
            for setting in override["properties"]:
                if setting["id"] == "color":
                    name = override["matcher"]["options"]
                    seen.add((name, setting["value"]["fixedColor"]))
    names = [name for name, _ in seen]
    assert len(names) == len(set(names))
    assert ("p99", "red") in seen or "p99" not in names


def test_references_are_dashed_and_nothing_else_is() -> None:
    """What was published is a grey dashed line on the rack's panels, by its name."""
    dashed = 0
    for panel in panels(READ["rack.json"]):
        legends = {target["legendFormat"] for target in panel["targets"]}
        references = {name for name in legends if name.startswith("published")}
        found = set()
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"]["id"] == "byRegexp":
                settings = {one["id"]: one["value"] for one in override["properties"]}
                assert settings["custom.lineStyle"]["fill"] == "dash"
                assert settings["color"] == {"fixedColor": "text", "mode": "fixed"}
                pattern = override["matcher"]["options"].strip("/")
                found |= {name for name in legends if re.search(pattern, name)}
        assert found == references
        dashed += len(references)
    assert dashed >= 4


def test_no_prefix_cache_is_said_as_such() -> None:
    """The value that stands for it is shown as words, in the tile and in the table."""
    texts = []
    for panel in panels(READ["rack.json"]):
        fields = panel["fieldConfig"]
        lists = [fields["defaults"]["mappings"]] + [
            setting["value"]
            for override in fields["overrides"]
            for setting in override["properties"]
            if setting["id"] == "mappings"
        ]
        texts += [
            (panel["type"], mapping["options"]["-1"]["text"])
            for mapping in chain.from_iterable(lists)
            if mapping["type"] == "value"
        ]
    assert texts == [("stat", "no prefix cache"), ("table", "no prefix cache")]


@boards
def test_heatmaps_draw_the_buckets_of_prometheus(board: dict[str, Any]) -> None:
    """Grafana takes them as they are: rates by `le`, not counted a second time."""
    for panel in panels(board):
        if panel["type"] == "heatmap":
            (target,) = panel["targets"]
            assert (target["format"], target["legendFormat"]) == ("heatmap", "{{le}}")
            assert "increase" not in target["expr"]
            assert panel["options"]["calculate"] is False


@boards
def test_variables_begin_with_everything(board: dict[str, Any]) -> None:
    """All of `$__all`, which is `.*`: a side that is absent hides nothing."""
    assert board["templating"]["list"][0]["name"] == "datasource"
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["current"]["value"] == ["$__all"]
            assert variable["allValue"] == ".*"
            assert variable["definition"] == variable["query"]


def test_an_angular_panel_is_refused() -> None:
    """The normaliser knows the kinds it writes; another one is an error, no guess."""
    graph = {"type": "graph", "targets": [], "fieldConfig": {"defaults": {}}}
    board = {"panels": [graph], "links": [], "templating": {"list": []}}
    with pytest.raises(KeyError, match="graph"):
        normalise(board)
