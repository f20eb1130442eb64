"""From what grafanalib writes to what today's Grafana (11 to 13) reads.

grafanalib 0.7.1 is of January 2024 and writes keys of Angular panels, strings for null
and a schema of 2016. Here every object keeps the keys of a list, the dated shapes are
written anew, and the rest is left out. Pure: dictionaries in, dictionaries out.
"""

from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]

SCHEMA_VERSION: Final = 41
"""What Grafana 11.6 writes; newer ones migrate from it on load."""
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
ALL: Final = "$__all"

_DASHBOARD: Final = (
    "annotations", "description", "editable", "graphTooltip", "links", "panels",
    "refresh", "schemaVersion", "tags", "templating", "time", "timezone", "title",
    "uid",
)  # fmt: skip
_PANEL: Final = (
    "collapsed", "datasource", "description", "fieldConfig", "gridPos", "id", "options",
    "panels", "targets", "title", "transformations", "type",
)  # fmt: skip
_TARGET: Final = (
    "datasource", "expr", "format", "instant", "legendFormat", "range", "refId",
)  # fmt: skip
_LINK: Final = (
    "asDropdown", "icon", "includeVars", "keepTime", "tags", "targetBlank", "title",
    "tooltip", "type", "url",
)  # fmt: skip
_DEFAULTS: Final = (
    "color", "custom", "decimals", "mappings", "max", "min", "noValue", "thresholds",
    "unit",
)  # fmt: skip
_CUSTOM: Final = {
    "timeseries": (
        "axisLabel", "axisPlacement", "drawStyle", "fillOpacity", "gradientMode",
        "hideFrom", "lineInterpolation", "lineWidth", "pointSize", "scaleDistribution",
        "showPoints", "spanNulls", "stacking", "thresholdsStyle",
    ),
    "table": ("align", "cellOptions"),
    "heatmap": ("hideFrom", "scaleDistribution"),
}  # fmt: skip
_OPTIONS: Final = {
    "timeseries": ("legend", "tooltip"),
    "stat": (
        "colorMode", "graphMode", "justifyMode", "orientation", "reduceOptions",
        "textMode",
    ),
    "gauge": (
        "orientation", "reduceOptions", "showThresholdLabels", "showThresholdMarkers",
    ),
    "bargauge": (
        "displayMode", "orientation", "reduceOptions", "showUnfilled", "valueMode",
    ),
    "heatmap": (
        "calculate", "cellGap", "cellValues", "color", "exemplars", "filterValues",
        "legend", "rowsFrame", "showValue", "tooltip", "yAxis",
    ),
    "table": ("cellHeight", "showHeader", "sortBy"),
}  # fmt: skip
_LAST: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_NOT_HIDDEN: Final = {"legend": False, "tooltip": False, "viz": False}
_ALWAYS: Final[dict[str, Json]] = {
    "timeseries": {"legend": {"showLegend": True}},
    "stat": {"justifyMode": "auto", "orientation": "auto", "reduceOptions": _LAST},
    "gauge": {
        "orientation": "auto", "reduceOptions": _LAST,
        "showThresholdLabels": False, "showThresholdMarkers": True,
    },
    "bargauge": {
        "displayMode": "basic", "orientation": "horizontal", "reduceOptions": _LAST,
        "showUnfilled": True, "valueMode": "color",
    },
    "heatmap": {
        # The buckets are Prometheus's; Grafana is not to count again.
        "calculate": False, "cellGap": 1, "cellValues": {"unit": "cps"},
        "color": {
            "exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": False,
            "scale": "exponential", "scheme": "Oranges", "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9}, "legend": {"show": True},
        "rowsFrame": {"layout": "auto"}, "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
    },
    "table": {"cellHeight": "sm", "showHeader": True},
}  # fmt: skip
"""Options in their present form, whatever grafanalib writes for them."""
_VARIABLE: Final = ("hide", "label", "name", "query", "type")
_VARIABLES: Final = {
    "datasource": ("current", "includeAll", "multi", "options", "refresh", "regex"),
    "query": (
        "allValue", "current", "datasource", "definition", "includeAll", "multi",
        "options", "refresh", "regex", "sort",
    ),
    "custom": ("current", "includeAll", "multi", "options"),
    "textbox": ("current", "options"),
}  # fmt: skip


def normalise(written: Json) -> Json:
    """Return a dashboard that Grafana reads as it was meant."""
    dashboard = _only(written, _DASHBOARD)
    dashboard["schemaVersion"] = SCHEMA_VERSION
    dashboard["graphTooltip"] = 1  # one crosshair over all panels
    dashboard["panels"] = [_panel(panel) for panel in written["panels"]]
    dashboard["links"] = [_only(link, _LINK) for link in written["links"]]
    dashboard["templating"] = {
        "list": [_variable(one) for one in written["templating"]["list"]]
    }
    return dashboard


def _panel(written: Json) -> Json:
    panel = _only(written, _PANEL)
    if panel["type"] == "row":
        panel["panels"] = [_panel(inner) for inner in written["panels"]]
        for key in (
            "datasource",
            "fieldConfig",
            "options",
            "targets",
            "transformations",
        ):
            panel.pop(key, None)
        return panel
    panel["options"] = _options(panel["type"], written)
    panel["datasource"] = dict(DATASOURCE)
    panel["targets"] = [_target(target) for target in written["targets"]]
    panel["fieldConfig"] = {
        "defaults": _defaults(panel["type"], written["fieldConfig"]["defaults"]),
        "overrides": written["fieldConfig"].get("overrides", []),
    }
    if not panel["transformations"]:
        del panel["transformations"]
    return panel


def _options(kind: str, written: Json) -> Json:
    # An unknown kind is an error here: most likely one of grafanalib's Angular panels.
    options = _only(written.get("options") or {}, _OPTIONS[kind])
    for key, value in _ALWAYS[kind].items():
        merge = key == "legend" and key in options
        options[key] = options[key] | value if merge else value
    if kind == "heatmap":
        unit = written["fieldConfig"]["defaults"]["unit"]
        options["yAxis"] = {"axisPlacement": "left", "reverse": False, "unit": unit}
    return options


def _target(written: Json) -> Json:
    target = _only(written, _TARGET)
    target["datasource"] = dict(DATASOURCE)
    target["range"] = not target["instant"]
    return target


def _defaults(kind: str, written: Json) -> Json:
    defaults = _only(written, _DEFAULTS)
    custom = _only(written.get("custom", {}), _CUSTOM.get(kind, ()))
    if kind == "table":
        custom["cellOptions"] = {"type": "auto"}
    elif kind == "heatmap":
        custom["hideFrom"] = dict(_NOT_HIDDEN)
        custom["scaleDistribution"] = {"type": "linear"}
    scale = custom.get("scaleDistribution")
    if scale and scale["type"] == "linear":
        custom["scaleDistribution"] = {"type": "linear"}
    defaults.pop("custom", None)
    if custom:
        defaults["custom"] = custom
    # The first step reaches down to minus infinity, which is null and not "null".
    steps = [
        {"color": step["color"], "value": None if i == 0 else step["value"]}
        for i, step in enumerate(defaults.pop("thresholds", {}).get("steps", ()))
    ]
    if steps:
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return defaults


def _variable(written: Json) -> Json:
    variable = _only(written, (*_VARIABLE, *_VARIABLES[written["type"]]))
    if variable["type"] == "query":
        variable["datasource"] = dict(DATASOURCE)
        variable["definition"] = variable["query"]
        variable["current"] = {"selected": True, "text": ["All"], "value": [ALL]}
    elif variable["type"] == "datasource":
        variable["current"] = {}
    else:
        variable["current"] = _only(variable["current"], ("selected", "text", "value"))
    return variable


def _only(written: Mapping[str, Any], keys: tuple[str, ...]) -> Json:
    """Return the listed keys that have a value, in the order of their names."""
    return {key: written[key] for key in sorted(keys) if written.get(key) is not None}
