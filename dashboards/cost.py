"""*Cost and energy*: what a run costs by the hour, for whom, and what it rests on.

Money is the load generator's, so it is there for any endpoint that has a price. Energy
is the server's: emulated by the mock, measured where dcgm-exporter runs.
"""

from typing import Final

from loadstone.catalog.tariffs import load_tariff
from loadstone.units import HOUR, KWH, MILLION
from loadstone.vocabulary import Client, Server

from .grafana import (
    NO_PRICE,
    Column,
    Panel,
    Query,
    Row,
    Variable,
    dashboard,
    stat,
    table,
    text_variable,
    timeseries,
)
from .normal import Json
from .queries import level, rate, ratio, series
from .shared import cost_per_million, cost_per_request, scope, spent

NO_ENERGY: Final = "no power is told"
_SITE: Final = "azure-nd-gb300-v6"
"""The price whose site gives the variables what they begin with."""
_SHARED: Final = (
    " The whole bill, idle time too, by work: output tokens, and input tokens at the"
    " weight above. Cached input is not told apart here; `loadstone cost` does."
)
_DRAWN: Final = " Of the chosen servers, at their machines' plugs."
_FACILITY: Final = " With what the site adds: the PUE above."


def cost() -> Json:
    """Return the dashboard's JSON."""
    return dashboard(
        "loadstone-cost",
        "loadstone / Cost and energy",
        "What a run costs by the hour, request and token; for whom; energy and carbon.",
        rows=[
            Row("", [(4, _tiles())]),
            Row("Money", [(8, _money())]),
            Row("For whom", [(8, _for_whom())]),
            Row("Energy and carbon", [(8, _energy())]),
            Row("What it rests on", [(9, [_assumptions()])]),
        ],
        variables=[*scope(), *_site()],
    )


def _site() -> list[Variable]:
    tariff = load_tariff(_SITE)
    return [
        text_variable(name, label, f"{tariff[name]:g}")
        for name, label in (
            ("pue", "PUE"),
            ("gco2_per_kwh", "gCO2/kWh"),
            ("prefill_weight", "Weight of an input token"),
        )
    ]


# ----------------------------------------------------------------------------- queries


def _usd_per_hour() -> str:
    return f"{rate(Client.COST, whole=True)} * {HOUR:.0f}"


def _work(by: str = "", *, whole: bool) -> str:
    output = rate(Client.OUTPUT_TOKENS, by=by, whole=whole)
    entered = rate(Client.INPUT_TOKENS, by=by, whole=whole)
    return f"({output} + $prefill_weight * {entered})"


def _usd_per_hour_by(label: str) -> str:
    share = f"{_work(label, whole=False)} / on () group_left () "
    share += f"({_work(whole=True)} > 0)"
    return f"{share} * on () group_left () ({_usd_per_hour()})"


def _joules_per_token() -> str:
    # Whole: this board chooses servers, and no rack or VM in them.
    tokens = rate(Server.GENERATION_TOKENS, whole=True)
    return ratio(rate(Server.ENERGY, whole=True), tokens)


def _grams_per_million() -> str:
    factor = f"$pue * $gco2_per_kwh / {KWH:.0f} * {MILLION:.0f}"
    return f"{_joules_per_token()} * {factor}"


def _idle_share(by: str = "") -> str:
    return f"1 - {level(Server.GPU_ENGINE_ACTIVE, by=by, how='avg')}"


# ------------------------------------------------------------------------------ panels


def _tiles() -> list[Panel]:
    money = (
        ("USD per hour", "What the machines cost now, busy or idle.", _usd_per_hour()),
        (
            "USD per request",
            "The whole bill over answered requests.",
            cost_per_request(),
        ),
        (
            "USD per 1M output tok",
            "The whole bill over millions of output tokens.",
            cost_per_million(),
        ),
    )
    return [
        *(
            stat(title, text, Query(expr), unit="currencyUSD", empty=NO_PRICE)
            for title, text, expr in money
        ),
        stat(
            "Energy per output token",
            f"Joules per generated token, idle time included.{_DRAWN}",
            Query(_joules_per_token()),
            unit="joule",
            empty=NO_ENERGY,
        ),
        stat(
            "gCO2 per 1M output tok",
            f"Grams of carbon dioxide per million generated tokens.{_FACILITY}",
            Query(_grams_per_million()),
            unit="massg",
            empty=NO_ENERGY,
        ),
        stat(
            "Idle share",
            "Share of the time in which a GPU was inside no step, over all GPUs: paid"
            " for, and used by nobody.",
            Query(_idle_share()),
            unit="percentunit",
            empty=NO_ENERGY,
        ),
    ]


def _money() -> list[Panel]:
    return [
        timeseries(
            "Cost per hour",
            "US dollars an hour at the present rate, for the run as a whole.",
            [Query(_usd_per_hour(), "cost per hour")],
            unit="currencyUSD",
            empty=NO_PRICE,
        ),
        timeseries(
            "Cost per million output tokens over time",
            "Falls as machines fill up: rent is the same, tokens are more.",
            [Query(cost_per_million(), "cost per million")],
            unit="currencyUSD",
            empty=NO_PRICE,
        ),
        spent(),
    ]


def _for_whom() -> list[Panel]:
    return [
        timeseries(
            f"Cost per hour by {label}",
            f"US dollars an hour.{_SHARED}",
            [Query(_usd_per_hour_by(label), f"{{{{{label}}}}}")],
            unit="currencyUSD",
            stacked=True,
            empty=NO_PRICE,
        )
        for label in ("tenant", "scenario", "stage")
    ]


def _energy() -> list[Panel]:
    power = f"sum({series(Server.POWER, whole=True)})"
    return [
        timeseries(
            "Energy per output token over time",
            f"At the machines' plugs, and with what the site adds (PUE).{_DRAWN}",
            [
                Query(_joules_per_token(), "machines"),
                Query(f"{_joules_per_token()} * $pue", "site"),
            ],
            unit="joule",
            empty=NO_ENERGY,
        ),
        timeseries(
            "Power of machines and site",
            f"Watts now.{_DRAWN}",
            [Query(power, "machines"), Query(f"{power} * $pue", "site")],
            unit="watt",
            empty=NO_ENERGY,
        ),
        timeseries(
            "Idle share by VM",
            "Share of the time in which a VM's GPUs were inside no step.",
            [Query(_idle_share("Hostname"), "{{Hostname}}")],
            unit="percentunit",
            empty=NO_ENERGY,
        ),
    ]


def _assumptions() -> Panel:
    value = level(Client.PRICE, by="price, term, unit, date, confidence", how="max")
    return table(
        "Assumptions",
        "Every figure of the price list that the run is reckoned with. Its source is in"
        " the run's summary.json.",
        {
            "price": "Price list", "term": "Term", "unit": "Unit", "date": "Date",
            "confidence": "Confidence",
        },
        [Column(Query(value, "Value"), "none", empty=NO_PRICE)],
    )  # fmt: skip
