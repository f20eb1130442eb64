"""A fit as a preset file, which `catalog.own_preset` reads."""

from typing import Any, Final

import tomli_w

from ..catalog.laws import UNITS
from ..catalog.own_preset import MACHINE
from ..catalog.presets import Preset
from .own import Fitted

_HEAD: Final = """\
# An engine fitted to own points by `loadstone fit`. Use it with `--preset FILE` of
# `loadstone simulate` and `loadstone serve`. `low` and `high` are 80 % intervals.

"""
_DIGITS: Final = 6


def preset_text(machine: Preset, fitted: Fitted, *, date: str) -> str:
    """Write the preset that `fitted` makes of `machine`, fitted on day `date`."""
    n = len(fitted.residuals)
    points = "1 own point" if n == 1 else f"{n} own points"
    tables = {
        "machine": dict(
            zip(
                MACHINE,
                (
                    machine.name,
                    machine.model,
                    machine.precision,
                    machine.tensor_parallel,
                    machine.expert_parallel,
                ),
                strict=True,
            )
        ),
        "law": {
            "source": f"fit of {date} on {points}",
            "date": date,
            "confidence": "derived",
            **{
                name: _fact(name, machine, fitted)
                for name in UNITS
                if getattr(fitted.law, name)
            },
        },
        "fit": {
            "points": n,
            "constants": len(fitted.factors),
            "factors_on_the_prior": {
                name: _rounded(factor) for name, factor in fitted.factors.items()
            },
            "not_identified": list(fitted.unidentified),
            "noise_pct": _rounded(100 * fitted.noise),
            "mean_error_pct": _rounded(100 * fitted.mean_error),
            "residuals": [
                {
                    "point": r.point.label,
                    "batch": _rounded(r.point.batch),
                    "tpot_ms": _rounded(1e3 * r.point.tpot_s),
                    "predicted_tpot_ms": _rounded(1e3 * r.predicted_s),
                    "error_pct": _rounded(100 * r.error),
                }
                for r in fitted.residuals
            ],
        },
    }
    return _HEAD + tomli_w.dumps(tables)


def _fact(name: str, machine: Preset, fitted: Fitted) -> dict[str, Any]:
    fact: dict[str, Any] = {
        "value": _rounded(getattr(fitted.law, name)),
        "unit": UNITS[name],
    }
    if name in fitted.intervals:
        low, high = fitted.intervals[name]
        fact |= {"low": _rounded(low), "high": _rounded(high)}
    if name in fitted.unidentified or name not in fitted.intervals:
        prior = machine.facts.get(name)
        stack = "" if name not in fitted.intervals else ", times the factor `stack`"
        fact["note"] = (
            "the points do not tell: as in the catalog"
            + stack
            + (f" ({prior.source})" if prior else "")
        )
    return fact


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
