"""The LLM table: a row for each slice of the traffic, and how its cells are written."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ..coordinator import Run
from ..stats import SliceStats


@dataclass(frozen=True, slots=True)
class Column:
    """One column as people read it: the figures in `keys`, each by `template`."""

    key: str
    title: str
    keys: tuple[str, ...]
    template: str = "{}"


COLUMNS: Final = (
    Column("scenario", "Scenario", ("scenario",)),
    Column("tenant", "Tenant", ("tenant",)),
    Column("stage", "Stage", ("stage",)),
    Column("sent", "Sent", ("sent",), "{:,}"),
    Column("ok", "OK", ("ok",), "{:,}"),
    Column("errors", "Errors", ("errors",), "{:,}"),
    Column("in_flight", "In flight", ("in_flight",), "{:,}"),
    Column(
        "ttft",
        "TTFT p50 / p95 / p99, ms",
        ("ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms"),
        "{:,.1f}",
    ),
    Column("tpot", "TPOT p50 / p99, ms", ("tpot_p50_ms", "tpot_p99_ms"), "{:,.1f}"),
    Column("e2e", "E2E p50 / p99, ms", ("e2e_p50_ms", "e2e_p99_ms"), "{:,.0f}"),
    Column("tokens_per_s", "Output tokens/s", ("output_tokens_per_s",), "{:,.0f}"),
    Column("usd_per_request", "$ per request", ("usd_per_request",), "{:.3g}"),
    Column("verdict", "Verdict", ("verdict",)),
)
KEYS: Final = tuple(key for column in COLUMNS for key in column.keys)
"""The figures one by one, as the CSV has them."""
_PERCENTILES: Final = {"ttft": (50, 95, 99), "tpot": (50, 99), "e2e": (50, 99)}


def rows_of(run: Run | None) -> Iterator[dict[str, Any]]:
    """Yield each slice's figures; times in ms, None where there is none yet."""
    if run is None:
        return
    verdict, _ = run.verdict_now()
    elapsed = run.elapsed_s()
    stats = run.stats()
    answered = stats.whole().outcomes["ok"]
    # Machines are not for any one slice: every answered request bears the same share.
    usd = run.cost_usd() / answered if run.fleet and answered else None
    for key, part in stats.slices.items():
        yield {
            **key._asdict(),
            **_figures(part, elapsed),
            "usd_per_request": usd,
            "verdict": verdict.value,
        }


def _figures(part: SliceStats, elapsed: float) -> dict[str, Any]:
    ok = part.outcomes["ok"]
    figures: dict[str, Any] = {
        "sent": part.sent,
        "ok": ok,
        "errors": part.sent - part.in_flight - ok,
        "in_flight": part.in_flight,
        "output_tokens_per_s": part.output_tokens / elapsed if elapsed > 0 else None,
    }
    for name, percents in _PERCENTILES.items():
        histogram = part.percentiles[f"{name}_s"]
        for percent in percents:
            value = histogram.quantile(percent / 100)
            figures[f"{name}_p{percent}_ms"] = None if value is None else value * 1000
    return figures


def shown(column: Column, row: dict[str, Any]) -> str:
    """Write a cell as people read it; a dash stands for what there is not yet."""
    values = (row[key] for key in column.keys)
    return " / ".join("-" if v is None else column.template.format(v) for v in values)
