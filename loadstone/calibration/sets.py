"""Which runs a target is about, and which of them are outliers: rules over columns."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from .runs import Run

_ACCELERATORS: Final = ("gb300", "gb200", "b200", "h200", "h100")
_MODELS: Final = ("llama-2-70b", "llama-3.1-405b", "deepseek-r1", "gpt-oss-120b")

SHORTFALL: Final = 0.9
"""Of what others published for a machine: submitters of one system differ by 2 to 6 %
(`fitting.NOISE`), so who stays a tenth below shows an installation, not the hardware.
The bound is half a choice: it names those that exploratory fits had missed most.
"""


def outliers(runs: Iterable[Run]) -> dict[str, str]:
    """Return the ids of runs that contradict others of their machine, and how.

    A run at `SHORTFALL` or less of the median of all other MLPerf submissions of the
    same machine, model, precision, scenario and product, up to its own round: software
    gets no slower. That is a rule over published figures; no prediction is in it.
    Outliers are left out of the primary set's figures alone; the fit has them.
    """
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        if run.round:
            key = (*_system(run), run.gpu, run.layout.precision, run.point.scenario)
            groups.setdefault(key, []).append(run)
    return {
        run.point.id: f"at {share:.0%} of the median of {count} other"
        f" submission{'s' if count > 1 else ''} for this machine, up to this round"
        for group in groups.values()
        for run in group
        for share, count in [_against_others(run, group)]
        if count and share <= SHORTFALL
    }


def _against_others(run: Run, group: Iterable[Run]) -> tuple[float, int]:
    others = [
        other.point.tokens_per_s_per_gpu
        for other in group
        if other is not run and other.round <= run.round
    ]
    return run.point.tokens_per_s_per_gpu / median(others or [1.0]), len(others)


def product(run: Run) -> str:
    """Return a stack without its generation: who made it."""
    return run.stack.partition("-")[0]


def primary(runs: Iterable[Run]) -> list[Run]:
    """Return the primary set: latest round of each stack, whoever submitted it.

    MLPerf runs of the accelerators and models that the targets name. Of each product,
    accelerator and model the latest round; of each scenario in it the median submission
    by tokens/s of a GPU, the lower of two.
    """
    candidates = [
        run
        for run in runs
        if run.round and run.gpu.name in _ACCELERATORS and run.model.name in _MODELS
    ]
    latest: dict[tuple[str, ...], str] = {}
    for run in candidates:
        key = _system(run)
        latest[key] = max(latest.get(key, ""), run.round)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in candidates:
        if run.round == latest[_system(run)]:
            groups.setdefault((*_system(run), run.point.scenario), []).append(run)
    return [_median(group) for group in groups.values()]


def _system(run: Run) -> tuple[str, ...]:
    """Return product, accelerator and model: what rounds are compared within."""
    return product(run), run.gpu.name, run.model.name


def _median(group: Sequence[Run]) -> Run:
    ranked = sorted(group, key=lambda run: run.point.tokens_per_s_per_gpu)
    return ranked[(len(ranked) - 1) // 2]
