"""docs/calibration.md and its plots: the model held against what was published."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Final

from ..calibration.fitting import Fit
from ..calibration.judgement import TPOT
from ..calibration.own import Z80
from ..calibration.sets import SHORTFALL
from ..calibration.simulation import Ttft
from ..calibration.targets import (
    LEFT_OUT_MEAN,
    Target,
    judged_targets,
    left_out_target,
)
from ..calibration.validation import Fold, Row, Validation, mean_error, untold
from .plot import Dots, linear_axis, log_axis, names_axis, scatter

DOCUMENT: Final = "docs/calibration.md"
PREDICTED: Final = "docs/images/calibration-predicted.svg"
ERRORS: Final = "docs/images/calibration-errors.svg"
_SPAN: Final = 60
"""The error plot ends at so many per cent on each side."""

_HEAD: Final = """\
# Calibration

Made by `loadstone validate --write`; do not edit. The model's constants are fitted to
published figures, all together, and held against each of them here: fitted, and left
out. What was published is in `loadstone/catalog/published_points.csv`
([sources and licences](../loadstone/catalog/README.md)); the constants are in
`loadstone/catalog/constants.toml`; how a law follows from them, a data sheet and a
model's configuration is in `loadstone/physics/derive.py`.

- **Error** is predicted over published, less 1. Runs without a latency limit are judged
  by tokens/s, runs at a rate by the time of an output token at that rate, or, near the
  engine's limit, by the rate at the published time.
- **80 %** is the interval that should hold four of five published figures.
- **fitted**: the point was in the fit. **left out**: predicted without any point of
  that accelerator or model. **transferred**: of accelerator and model together there
  is no point at all.
- "MLPerf" is a trademark of MLCommons. Predictions are not MLPerf results; published
  rows are known by their ID. Azure's rack runs are not verified by MLCommons.

Points of your own: `loadstone fit POINTS.csv --gpu h100 --model llama-3.1-70b -o
mine.toml`, or run folders of `loadstone run` in place of the CSV, give a preset for
`--preset mine.toml`. What your points cannot tell stays as here, and is named.
"""


def document(
    validation: Validation,
    machines: Iterable[tuple[str, ...]],
    *,
    folds: bool = True,
    ttfts: Sequence[Ttft] = (),
) -> str:
    """Write the document; `machines` are preset, model, layout, basis.

    Without `folds` the section about what was left out, which takes a fit for each
    accelerator and model, is missing; without `ttfts` that about times to first token,
    which takes a simulation of each run.
    """
    v = validation
    lines = [
        _HEAD,
        *_summary(v),
        "![Predicted against published](images/calibration-predicted.svg)",
        "",
        *_primary(v),
        *_groups(v),
        *(_left_out(v) if folds else ()),
        *(_first_tokens(ttfts) if ttfts else ()),
        *_machines(machines),
        *_constants(v),
        *_every(v),
        *_refused(v),
    ]
    return "\n".join(lines)


def summary(fit: Fit) -> str:
    """Say what was fitted on what."""
    constants, points = len(fit.constants), len(fit.runs)
    return (
        f"fitted {constants} constants on {points} points"
        f" ({points / constants:.1f} points per constant)"
    )


def _summary(v: Validation) -> Iterator[str]:
    yield f"## In short\n\n{summary(v.fit).capitalize()}.\n"
    yield from _table(
        ("target", "is", "should be", ""),
        [(t.name, t.text, t.limit, _met(t)) for t in judged_targets(v)],
    )
    yield (
        "No figure here is a blind test: the weight of the latest round and the priors"
        " were settled while looking at the primary set's errors (now"
        f" {100 * mean_error(v.primary):.1f} %; each point left out by itself"
        f" {100 * v.alone_error(v.primary):.1f} %) and at those of what was left out."
        " What the targets for each accelerator and model left out say is [below]"
        "(#left-out).\n"
    )


def _met(target: Target) -> str:
    return "met" if target.met else "**not met**"


KEYS: Final[dict[str, Callable[[Row], str]]] = {
    "accelerator": lambda row: row.run.gpu.name,
    "model": lambda row: row.run.model.name,
    "stack": lambda row: row.run.stack,
}


def grouped(rows: Iterable[Row], kind: str) -> dict[str, list[Row]]:
    """Return rows by accelerator, model or stack."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(KEYS[kind](row), []).append(row)
    return dict(sorted(groups.items()))


def figures(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return number, mean and largest error, coverage and half-width, as text."""
    return (
        str(len(rows)),
        f"{100 * mean_error(rows):.1f} %",
        f"{100 * max((row.error for row in rows), key=abs):+.1f} %",
        f"{100 * fmean(row.covered for row in rows):.0f} %",
        f"{100 * fmean(row.half_width for row in rows):.0f} %",
    )


FIGURES: Final = ("points", "mean error", "largest", "covered", "half-width")


def _groups(v: Validation) -> Iterator[str]:
    yield "## Fitted points, by accelerator, model and stack\n"
    for kind in KEYS:
        groups = grouped(v.rows, kind).items()
        rows = [(name, *figures(group)) for name, group in groups]
        yield from _table((kind, *FIGURES), [*rows, ("all", *figures(v.rows))])


LEFT_OUT: Final = "## Left out"
_CHOICES: Final = """\
Choices that were made while looking at these figures:

- **The board's power limit** holds the clock of tensor cores back (`power`: before any
  point an exponent between 1/3 and 1). MI300X and MI325X have one die on the data
  sheet, at 750 and 1,000 W; a law without the term missed MI325X, left out, by 25.2 %,
  and told the two apart by factors of their own, 0.87 and 1.14. It was looked for
  there. What it was not looked for in: the MI355X that was run at 1,000 W instead of
  1,400. Left out, it is predicted 12 % below the same machine without the cap, where
  18 % was published; the law before said 0 %. With the term 10 of the 17 groups above
  are nearer and 7 are further off, by 4.6 points at most. For CDNA4 the exponent comes
  out above 1, from that one run: more than clocks was held back there.
- **A factor of power for each family** was added for what the exponent said alone:
  B200 and GB200, 1,000 and 1,200 W, hardly differ. One exponent for all gives 12.2 %
  for MI325X, 12.6 % for B200 and 13.9 % over the groups; now it is 13.7 %.
- **A generation that no point has** is foreseen from those beside it: software gains
  from release to release, so the logarithm of its cost is taken as a random walk with a
  pace of the product's own, both as spread as a generation's factor is before any point
  (`calibration/generations.py`). That came after DeepSeek-R1, left out, had been missed
  by 27.8 %: MLPerf v5.1 has TensorRT-LLM's PyTorch backend with no other model, and in
  v6.0 the same machines give 1.5 to 1.8 times as much (Offline). A walk without a pace
  gives 22.8 %, half of the pace, as above, 19.3 %, all of it 16.7 %. Elsewhere a
  generation is missing between two others or beside one alone, where walks with and
  without a pace say the same: Llama-3.3-70B went from 17.5 to 8.9 %, MI355X from 11.6
  to 14.6 %.
- **Not taken: the slowest rank.** Under data-parallel attention one GPU prefills a
  prompt while the others wait. As a term from facts alone it brings DeepSeek-R1, left
  out, to 15.4 %, and the primary set's largest error to 15.6 %, Llama-3.1-405B to 24 %
  and FP8 GEMMs on Blackwell to more than their peak: too much of it. Let prompts in
  together at every tenth step, as such engines do, and next to nothing of it is left.
- **The fit stops early**, at a gain below 1/10,000 of the loss. Going on lowers the
  loss by another per cent. Of the groups that were looked at then (six models),
  Llama-3.1-405B, left out, is at 20.0 %, gpt-oss-120b at 13.8 %.
"""


def _left_out(v: Validation) -> Iterator[str]:
    yield f"{LEFT_OUT}\n"
    yield (
        "Each accelerator, and each model, predicted by a fit without any of its"
        f" points. The mean error of each should be {100 * LEFT_OUT_MEAN:.0f} % at"
        " most.\n"
    )
    yield "![Errors by accelerator](images/calibration-errors.svg)\n"
    folds = {(fold.kind, fold.name): fold for fold in v.folds}
    lost = {key: untold(v.fit, fold.fit) for key, fold in folds.items()}
    yield from _table(
        ("left out", *FIGURES, "", "told by its points alone"),
        [
            (
                name,
                *figures(rows),
                _met(left_out_target(name, rows)),
                ", ".join(f"`{constant}`" for constant in lost[kind, name]),
            )
            for (kind, name), rows in v.left_out.items()
        ],
    )
    yield (
        "A constant that is told by a group's points alone stays at its prior in the"
        " fit without them, whatever the law: other evidence would have to tell it.\n"
    )
    for (kind, name), rows in v.left_out.items():
        yield from _generations(folds[kind, name], rows, v.fit, lost[kind, name])
    yield _CHOICES
    yield "<details><summary>Every point, left out</summary>\n"
    without: dict[str, dict[str, Row]] = {"accelerator": {}, "model": {}}
    for (kind, _), rows in v.left_out.items():
        without[kind] |= {row.run.point.id: row for row in rows}
    yield from _table(
        (
            "point", "published", "without its accelerator", "error", "80 %",
            "without its model", "error", "80 %",
        ),
        [
            (
                row.run.point.id,
                _unit(row)(row.judged.published),
                *(cell for kind in without for cell in _without(row, without[kind])),
            )
            for row in v.rows
        ],
    )  # fmt: skip
    yield "</details>\n"


def _generations(
    fold: Fold, rows: Sequence[Row], whole: Fit, lost: Iterable[str]
) -> Iterator[str]:
    """Say what a software generation that nothing else tells does to its points."""
    for constant in lost:
        stack = constant.removeprefix("stack.")
        of_it = [row for row in rows if row.run.stack == stack]
        if stack == constant or len(of_it) == len(rows):
            continue
        rest = [row for row in rows if row.run.stack != stack]
        low, high = whole.low_high(constant, Z80)
        inside = sum(row.covered for row in of_it)
        value = whole.efficiencies.values[constant]
        yield (
            f"- Of {fold.name}'s {len(rows)} points {len(of_it)} are of {stack}, and"
            " nothing else tells that generation of the software. Without them its"
            f" factor is foreseen as {fold.efficiencies.values[constant]:.2f}; all"
            f" points together say {value:.2f} ({low:.2f} to {high:.2f}). They are"
            f" missed by {100 * mean_error(of_it):.1f} %, and {inside} of them are in"
            f" their intervals; the other {len(rest)} are missed by"
            f" {100 * mean_error(rest):.1f} %.\n"
        )


def _without(row: Row, others: Mapping[str, Row]) -> tuple[str, str, str]:
    """Return prediction, error and interval of a row that was left out.

    Another law may be nearer its limit, and so be judged by another figure.
    """
    other = others[row.run.point.id]
    unit = _unit(other)
    same = other.judged.figure == row.judged.figure
    return (
        unit(other.judged.predicted) + ("" if same else f" ({other.judged.figure})"),
        f"{100 * other.error:+.1f} %",
        f"{unit(other.low)} to {unit(other.high)}",
    )


POINT: Final = ("point", "judged by", "published", "predicted", "error", "80 %", "")


def point_cells(row: Row, status: str = "") -> tuple[str, ...]:
    """Return a row of the table of points."""
    unit = _unit(row)
    return (
        row.run.point.id,
        row.judged.figure,
        unit(row.judged.published),
        unit(row.judged.predicted),
        f"{100 * row.error:+.1f} %",
        f"{unit(row.low)} to {unit(row.high)}",
        status or row.basis,
    )


TTFT: Final = (
    "point", "TTFT p50, published", "simulated", "error", "p99, published",
    "simulated", "error",
)  # fmt: skip


def ttft_cells(ttft: Ttft) -> tuple[str, ...]:
    """Return a row of the table of times to first token."""
    point = ttft.run.point
    p50, p99 = ttft.errors
    return (
        point.id,
        f"{point.ttft_p50_ms:,.0f} ms",
        f"{1e3 * ttft.p50_s:,.0f} ms",
        f"{100 * p50:+.0f} %",
        f"{point.ttft_p99_ms:,.0f} ms",
        f"{1e3 * ttft.p99_s:,.0f} ms",
        f"{100 * p99:+.0f} %",
    )


FIRST_TOKENS: Final = "## Time to first token"
_TTFT_LIMITS: Final = (0.25, 0.40)
"""Errors of p50 and p99 that are asked for."""


def _first_tokens(ttfts: Sequence[Ttft]) -> Iterator[str]:
    yield f"{FIRST_TOKENS}\n"
    p50, p99 = _TTFT_LIMITS
    yield (
        "From the event simulation at each run's published rate, with the engine that"
        f" `simulate` and `serve` run. Asked for is p50 within {p50:.0%} and p99 within"
        f" {p99:.0%}. A run so near its limit that it is judged by its rate is"
        " simulated at the published batch, and five times with other arrivals: the"
        " median of each percentile counts, for a single draw's 99th percentile moves"
        " by half and more. Runs of a submitter's vLLM, of unknown lengths, and at an"
        " engine's very limit are not judged.\n"
    )
    kinds: dict[tuple[str, str, str], list[Ttft]] = {}
    for ttft in ttfts:
        run = ttft.run
        key = (run.stack, run.model.name, run.point.scenario)
        kinds.setdefault(key, []).append(ttft)
    groups = [*sorted(kinds.items()), (("all", "", ""), list(ttfts))]
    yield from _table(
        ("stack", "model", "scenario", "runs", "p50 within", "p99 within",
         "mean error of p50", "of p99"),
        [(*key, str(len(group)), *_ttft_figures(group)) for key, group in groups],
    )  # fmt: skip
    yield _TTFT_CAUSES
    yield "<details><summary>Every run</summary>\n"
    yield from _table(TTFT, map(ttft_cells, ttfts))
    yield "</details>\n"


def _ttft_figures(group: Sequence[Ttft]) -> Iterator[str]:
    """Yield how many of each percentile are within their limit, and the mean errors."""
    percentiles = list(zip(*(ttft.errors for ttft in group), strict=True))
    for errors, limit in zip(percentiles, _TTFT_LIMITS, strict=True):
        yield str(sum(abs(error) <= limit for error in errors))
    yield from (f"{100 * fmean(errors):+.0f} %" for errors in percentiles)


_TTFT_CAUSES: Final = """\
What the runs outside have in common, as far as published figures tell:

- **DeepSeek-R1, MLPerf v5.1.** Medians of 8 to 12 steps and 99th percentiles of 19 to
  31, where v6.0 has 6 to 9 and 11 to 20. TensorRT-LLM's attention data parallelism has
  two waits, 10 steps for batching and up to 50 for ranks without a prompt
  (`AttentionDpConfig`); the simulation has the first. Which of them v5.1's submissions
  used is not published, and no wait was fitted to them.
- **Llama-3.1-405B near its limit.** About a third of a step is fixed, so queueing
  amplifies what a step is off. Two runs on B300, nearest to it, have a 99th percentile
  that is half and once again too high; their settings are not published, and B200's
  are used. With one draw instead of five, 5 more runs were outside and 1 fewer.
- **DeepSeek-R1 on many engines.** Prompts are let in at every tenth step, which draws
  the two percentiles together: 99th percentiles are lower by a few points than with a
  random wait of 0 to 10 steps, which was used before; one median is in by it, one out.
- **One run of a group.** Four submissions have a 99th percentile of four to nine times
  their median on engines at half of their batch or less, where two to three times is
  usual: what the submitter's harness adds is not published.
"""


def _unit(row: Row) -> Callable[[float], str]:
    if row.judged.figure == TPOT:
        return lambda value: f"{1e3 * value:,.1f} ms"
    return lambda value: f"{value:,.0f}/s"


def _primary(v: Validation) -> Iterator[str]:
    yield "## The primary set\n"
    yield (
        "The latest MLPerf round of each accelerator, model and product, the median"
        " submission of each scenario.\n"
    )
    rows = [point_cells(row) for row in v.primary]
    rows += [point_cells(row, "outlier") for row in v.primary_outliers]
    yield from _table(POINT, rows)
    for row in v.primary_outliers:
        yield f"- {row.run.point.id} is an outlier: {v.outliers[row.run.point.id]}."
    with_them = mean_error([*v.primary, *v.primary_outliers])
    yield ""
    yield (
        f"The rule looks at published figures alone ({SHORTFALL:.0%} at most of what"
        " others published), but its bound was set after fits had missed these three"
        f" by +16 % and more. With them the mean error over the set is"
        f" {100 * with_them:.1f} %. They are in the fit and in all other figures.\n"
    )


def _machines(machines: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "## What the catalog serves, and on what basis\n"
    yield from _table(("machine", "model", "layout of an engine", "law"), machines)


def _constants(v: Validation) -> Iterator[str]:
    yield "## The constants\n"
    table = []
    for constant in v.fit.constants:
        low, high = v.fit.low_high(constant.name, Z80)
        value = v.fit.efficiencies.values[constant.name]
        table.append(
            (
                f"`{constant.name}`",
                f"{value:.3g}",
                f"{low:.3g} to {high:.3g}",
                constant.unit,
                f"{constant.value:.3g}",
                constant.meaning,
            )
        )
    yield from _table(("constant", "value", "80 %", "unit", "before", "what"), table)


def _every(v: Validation) -> Iterator[str]:
    yield "## Every point\n\n<details><summary>All fitted points</summary>\n"
    yield from _table(POINT, map(point_cells, v.rows))
    yield "</details>\n"


def _refused(v: Validation) -> Iterator[str]:
    yield "## Not judged\n"
    reasons: dict[str, list[str]] = {}
    for point, reason in v.refused.items():
        reasons.setdefault(reason, []).append(point)
    yield from _table(
        ("points", "why", "such as"),
        [(str(len(ids)), why, ids[0]) for why, ids in sorted(reasons.items())],
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        cells = (*row, *[""] * (len(head) - len(row)))
        yield f"| {' | '.join(cells)} |"
    yield ""


# ------------------------------------------------------------------------ plots


def plots(validation: Validation) -> Mapping[str, str]:
    """Return the plots by their paths in the repository."""
    return {PREDICTED: _predicted(validation), ERRORS: _errors(validation)}


def _predicted(v: Validation) -> str:
    rows = [row for row in v.rows if row.judged.figure != TPOT]
    pairs = [(row.judged.published, row.judged.predicted) for row in rows]
    values = [value for pair in pairs for value in pair]
    axis = log_axis("published, output tokens/s of a GPU", values)
    ends = axis.ticks[0][0], axis.ticks[-1][0]
    dots = [
        Dots(
            name,
            [(r.judged.published, r.judged.predicted) for r in group],
            colour=i,
        )
        for i, (name, group) in enumerate(grouped(rows, "accelerator").items())
    ]
    return scatter(
        "Predicted against published; shaded: within 10 %",
        axis,
        log_axis("predicted", values),
        dots,
        lines=[[(end, end) for end in ends]],
        band=[
            (ends[0], ends[0] * 1.1), (ends[1] / 1.1, ends[1]), (ends[1], ends[1]),
            (ends[1], ends[1] / 1.1), (ends[0] * 1.1, ends[0]), (ends[0], ends[0]),
        ],
    )  # fmt: skip


def _errors(v: Validation) -> str:
    fitted = grouped(v.rows, "accelerator")
    names = list(fitted)
    out = [v.left_out.get(("accelerator", name), ()) for name in names]
    last = len(names) - 0.5
    return scatter(
        "Error of each point; shaded: within 10 %",
        names_axis(names),
        linear_axis("predicted over published", -_SPAN, _SPAN, 20, " %"),
        [
            Dots("fitted", _strip(fitted.values(), -0.18)),
            Dots("left out", _strip(out, 0.18), hollow=True, colour=1),
        ],
        lines=[[(-0.5, 0), (last, 0)]],
        band=[(-0.5, -10), (last, -10), (last, 10), (-0.5, 10)],
    )


def _strip(groups: Iterable[Sequence[Row]], shift: float) -> list[tuple[float, float]]:
    """Place errors above their group's name, side by side in the order of rows."""
    return [
        (index + shift + 0.24 * (i / max(len(group) - 1, 1) - 0.5), 100 * row.error)
        for index, group in enumerate(groups)
        for i, row in enumerate(group)
    ]
