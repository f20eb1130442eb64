"""The charts of a report: what is drawn of a run, over which axes, with which words."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, log
from typing import Any, Final

from ..buckets import bucket_value
from ..units import Seconds
from .charts import (
    Bar,
    Dot,
    Look,
    Mark,
    Point,
    Series,
    Shade,
    Tip,
    heatmap,
    plot,
    scatter,
    waterfall,
)
from .decision import METRICS
from .document import Document, ServerSeries
from .pareto import USER_AXIS, Picture
from .scales import (
    Scale,
    clock,
    decades,
    linear,
    shares,
    short_duration,
    short_number,
    tail,
)
from .table import duration
from .timeline import Bin

_ROWS_OF_HEAT: Final = 26
_KINDS: Final = ((5, "beaten"), (5, "doubtful"), (1, "frontier"), (3, "knee"))
"""Of a sweep's points, and their colours; see `Picture`."""
_NEAR: Final = 3.0
"""A limit is drawn if it is at most so many times the highest value."""
_DENSE: Final = 3
"""Points that a line needs; with fewer there is no course to draw."""

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its title, what its lines are called, and a note below."""

    name: str
    title: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()
    """Class of a line, and what it is."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    """One line over time: its name, how it looks, and what it reads of a bin."""

    name: str
    read: Callable[[Bin], float | None]
    colour: int
    look: Look = "line"


def over_time(document: Document) -> Iterator[Figure]:
    """Draw what was asked and what came back, from t0 to the end."""
    bins = document.bins
    if not bins:
        return
    at_once = document.plan["plan"].get("offline") is not None
    placed = f"by when {'the token came' if at_once else 'the request was sent'}"
    width = bins[0].width_s
    each = f"{width:g} s" if width < 60 else f"{width / 60:g} min"
    yield _course(
        document, "tokens", "Output tokens per second", short_number,
        [_Line("output tokens/s", lambda b: b.output_tok_s, 1, "area")],
        marks=_steady(document),
        note=f"each answer's tokens evenly spread over its time; {each} a point",
    )  # fmt: skip
    yield _course(
        document, "requests", "Requests per second", short_number,
        [
            _Line("sent", lambda b: b.sent / b.width_s, 1),
            _Line("answered", lambda b: b.ended.get("ok", 0) / b.width_s, 2),
            # Over the line that it is mostly the same as, so that both are seen.
            _Line("due", lambda b: b.due / b.width_s, 5, "dashed"),
        ],
    )  # fmt: skip
    yield _course(
        document, "ttft", "Time to first token", short_duration,
        [
            _Line("p50", lambda b: b.ttft_p50_s, 1),
            _Line("p99", lambda b: b.ttft_p99_s, 3),
        ],
        limits=_limits(document, "ttft"),
        note=placed,
    )  # fmt: skip
    yield _course(
        document, "tpot", "Time per output token", short_duration,
        [
            _Line("p50", lambda b: b.tpot_p50_s, 1),
            _Line("p99", lambda b: b.tpot_p99_s, 3),
        ],
        limits=_limits(document, "tpot"),
        note=placed,
    )  # fmt: skip
    yield _course(
        document, "in_flight", "Requests in flight", short_number,
        [_Line("in flight", lambda b: b.in_flight, 4, "area")],
    )  # fmt: skip
    kinds = [k for k in _ended(bins) if k != "ok"]
    if kinds:
        yield _course(
            document, "errors", "Not answered, per second", short_number,
            [
                _Line(kind, _of_kind(kind), 3 - i if i < 3 else 5)
                for i, kind in enumerate(kinds)
            ],
        )  # fmt: skip


def _of_kind(kind: str) -> Callable[[Bin], float | None]:
    return lambda b: b.ended.get(kind, 0) / b.width_s


def _ended(bins: Iterable[Bin]) -> list[str]:
    whole: Counter[str] = Counter()
    for one in bins:
        whole.update(one.ended)
    return [kind for kind, _ in whole.most_common()]


def _course(
    document: Document,
    name: str,
    title: str,
    label: Callable[[float], str],
    lines: Sequence[_Line],
    *,
    limits: Sequence[Mark] = (),
    marks: Sequence[Mark] = (),
    note: str = "",
) -> Figure:
    bins = document.bins
    values = [v for b in bins for line in lines if (v := line.read(b)) is not None]
    highest = max(values, default=1.0)
    # A limit far above would press what was measured to the ground.
    near = [limit for limit in limits if limit.value <= _NEAR * highest]
    far = [f"{m.text} is {label(m.value)}" for m in limits if m not in near]
    highest = max((highest, *(limit.value for limit in near)))
    series = [
        Series(line.name, _steps(bins, line.read), line.colour, line.look)
        for line in lines
    ]
    x, y = clock(document.end_s), linear(highest or 1.0, label)
    tips = [Tip(b.start_s, b.start_s + b.width_s, _told(b, lines, label)) for b in bins]
    said = f"{title} over {short_duration(document.end_s)}"
    if values:
        low, high = label(min(values)), label(max(values))
        said += f", between {low} and {high}"
    return Figure(
        name,
        title,
        plot(
            said,
            x,
            y,
            series,
            tips=tips,
            limits=near,
            marks=marks,
            shades=_phases(document),
        ),
        tuple((_look(s), s.name) for s in series) if len(series) > 1 else (),
        "; ".join(filter(None, (note, *far))),
    )


def _look(series: Series) -> str:
    dashed = " dashed" if series.look == "dashed" else ""
    return f"s{series.colour}{dashed}"


def _steps(
    bins: Sequence[Bin], read: Callable[[Bin], float | None]
) -> tuple[Point, ...]:
    return tuple((b.start_s + b.width_s / 2, read(b)) for b in bins)


def _told(b: Bin, lines: Sequence[_Line], label: Callable[[float], str]) -> str:
    values = (
        f"{line.name} {'-' if (v := line.read(b)) is None else label(v)}"
        for line in lines
    )
    return f"{b.start_s:g} to {b.start_s + b.width_s:g} s: {', '.join(values)}"


def _phases(document: Document) -> tuple[Shade, ...]:
    """Set warm-up and drain apart: no request is due in the drain."""
    plan, end = document.plan.get("plan", {}), document.end_s
    shades = []
    warmup, last = plan.get("warmup_s") or 0.0, plan.get("duration_s")
    if warmup:
        shades.append(Shade(0.0, min(warmup, end), _if_wide("warm-up", warmup, end)))
    if last and last < end and plan.get("offline") is None:
        shades.append(Shade(last, end, _if_wide("drain", end - last, end)))
    return tuple(shades)


def _if_wide(text: str, span: Seconds, of: Seconds) -> str:
    return text if span > of / 8 else ""


def _steady(document: Document) -> tuple[Mark, ...]:
    """Return where the steady window begins and ends."""
    window = document.summary.get("window") or {}
    start, end = window.get("start_s"), window.get("end_s")
    if start is None or end is None:
        return ()
    return (Mark(start, "steady"), Mark(end, "steady"))


def _limits(document: Document, family: str) -> tuple[Mark, ...]:
    """Return the objectives on a latency, as lines."""
    return tuple(
        Mark(float(slo["max_s"]), f"limit of {slo['stat']}")
        for slo in document.summary.get("slo", ())
        if str(slo["metric"]).startswith(family)
    )


# ---------------------------------------------------------------------- distributions


def distributions(document: Document) -> Iterator[Figure]:
    """Draw which share was answered within how long, and what waiting adds."""
    for name, title in (
        ("ttft_s", "Time to first token"),
        ("tpot_s", "Time per output token"),
        ("e2e_s", "Whole answer"),
    ):
        pairs = document.distributions.get(name, ())
        if len(pairs) >= _DENSE:
            yield _cdf(document, name, title, pairs)
    sent = document.distributions.get("ttft_s", ())
    due = document.distributions.get("ttft_intended_s", ())
    if len(sent) >= _DENSE:
        yield _tails(sent, due)


def _cdf(document: Document, name: str, title: str, pairs: Pairs) -> Figure:
    curve = list(_cumulative(pairs))
    x = decades([v for v, _ in curve], short_duration)
    curve.append((x.high, 1.0))
    stats = document.summary.get(name, {})
    marks = [
        Mark(stats[q], q) for q in ("p50", "p99") if isinstance(stats.get(q), float)
    ]
    return Figure(
        f"cdf_{name}",
        title,
        plot(
            f"Share of answers by {METRICS[name]}",
            x,
            shares(),
            [Series(title, ((x.low, 0.0), *curve), 1, "area")],
            tips=_steps_told(curve),
            marks=marks,
        ),
        note="share of requests that took no longer",
    )


def _tails(sent: Pairs, due: Pairs) -> Figure:
    n = sum(count for _, count in sent)
    nines = tail(high=1 - 1 / max(n, 10))
    curves = [list(_cumulative(pairs)) for pairs in (sent, due)]
    y = decades([v for curve in curves for v, _ in curve], short_duration)
    looks: tuple[tuple[str, int, Look], ...] = (
        ("from sending", 1, "line"), ("from when it was due", 3, "dashed"),
    )  # fmt: skip
    series = [
        Series(name, [(min(share, nines.high), v) for v, share in curve], colour, look)
        for curve, (name, colour, look) in zip(curves, looks, strict=True)
    ]
    return Figure(
        "tails",
        "Time to first token, down to the slowest",
        plot("Time to first token by percentile", nines, y, series),
        tuple((_look(s), s.name) for s in series),
        "percentiles, each nine as wide; apart where requests had to wait to be sent",
    )


def _cumulative(pairs: Pairs) -> Iterator[tuple[float, float]]:
    n, seen = sum(count for _, count in pairs), 0
    for bucket, count in pairs:
        seen += count
        yield bucket_value(bucket), seen / n


def _steps_told(curve: Sequence[tuple[float, float]]) -> list[Tip]:
    return [
        Tip(a, b, f"{100 * share:.3g} % within {duration(a)}")
        for (a, share), (b, _) in pairwise(curve)
    ]


# ---------------------------------------------------------------------- heat and stages


def heat(document: Document) -> Figure | None:
    """Draw how many requests had which time to first token, over time."""
    bins = [b for b in document.bins if b.ttfts]
    values = [bucket_value(i) for b in bins for i, _ in b.ttfts]
    if len(bins) < _DENSE:
        return None
    x = clock(document.end_s)
    y = decades(values, short_duration)
    rows = _Rows(y)
    counts = {
        (b.start_s, min(b.start_s + b.width_s, document.end_s), *edges): n
        for b in bins
        for edges, n in rows.counted(b.ttfts)
    }
    most = max(counts.values())
    tips = [
        Tip(
            b.start_s,
            b.start_s + b.width_s,
            f"{b.start_s:g} to {b.start_s + b.width_s:g} s: {b.sent:,} sent,"
            f" p50 {duration(b.ttft_p50_s)}, p99 {duration(b.ttft_p99_s)}",
        )
        for b in bins
    ]
    weights = {cell: (n / most) ** 0.5 for cell, n in counts.items()}
    return Figure(
        "heat",
        "Time to first token, every request",
        heatmap(
            "Heatmap of time to first token over time",
            x, y, weights, tips=tips,
            limits=[m for m in _limits(document, "ttft") if m.value <= y.high],
        ),
        note=f"the stronger the colour, the more requests, {most:,} at most",
    )  # fmt: skip


class _Rows:
    """Cuts a logarithmic axis into even rows."""

    def __init__(self, y: Scale) -> None:
        self._low = log(y.low)
        self._high = (log(y.high) - self._low) / _ROWS_OF_HEAT

    def counted(
        self, pairs: Iterable[tuple[int, int]]
    ) -> Iterator[tuple[tuple[float, float], int]]:
        """Yield the edges of each row that has any, and how many."""
        rows: Counter[int] = Counter()
        for bucket, n in pairs:
            place = ceil((log(bucket_value(bucket)) - self._low) / self._high) - 1
            rows[min(max(place, 0), _ROWS_OF_HEAT - 1)] += n
        for row, n in rows.items():
            low = self._low + row * self._high
            yield (exp(low), exp(low + self._high)), n


def stage_waterfall(document: Document) -> Figure | None:
    """Draw the stages of an answer one after the other, on average."""
    if not document.stages:
        return None
    bars, begin = [], 0.0
    for stage in document.stages:
        end = begin + stage["mean_s"]
        text = (
            f"{stage['stage']}: {duration(stage['mean_s'])},"
            f" p99 {duration(stage['p99_s'])}"
        )
        bars.append(Bar(str(stage["stage"]), begin, end, begin + stage["p99_s"], text))
        begin = end
    x = linear(max(bar.tail for bar in bars), short_duration)
    return Figure(
        "stages",
        "Where an answer's time goes",
        waterfall("Stages of an answer, on average", x, bars),
        note="bars are means, one after the other; thin lines reach to each one's p99",
    )


def pareto(document: Document) -> Figure | None:
    """Draw a sweep: what GPUs give against what users see, and where it bends."""
    sweep = document.sweep
    picture = None if sweep is None else Picture.of("", sweep["steps"])
    if picture is None:
        return None
    x = linear(max(x for x, _ in picture.points), short_number)
    y = linear(max(y for _, y in picture.points), short_number)
    dots = [
        Dot(
            px, py, f"{kind}: {px:,.1f} tokens/s a user, {py:,.0f} tokens/s",
            colour=colour, hollow=kind == "doubtful",
            name=picture.knee_at if kind == "knee" else "",
        )
        for colour, kind in _KINDS
        for px, py in picture.kinds[kind]
    ]  # fmt: skip
    line = sorted(picture.kinds["frontier"])
    return Figure(
        "pareto",
        f"{picture.y_title}, against speed",
        scatter("Throughput against speed, by load", x, y, dots, line=line),
        note=f"{USER_AXIS} to the right; the knee, {picture.knee_at}, is this run",
    )


def server_charts(document: Document) -> Iterator[Figure]:
    """Draw each metric of the server's own."""
    for i, series in enumerate(document.server):
        points = _thinned(series)
        highest = max((v for _, v in points), default=0.0)
        if len(points) < _DENSE or highest <= 0:
            continue
        x, y = clock(max(document.end_s, points[-1][0])), linear(highest, short_number)
        yield Figure(
            f"server_{i}",
            series.name,
            plot(f"{series.name} of {series.source}", x, y,
                 [Series(series.name, points, 4)]),
            note=series.source,
        )  # fmt: skip


def _thinned(series: ServerSeries) -> list[tuple[Seconds, float]]:
    step = max(1, len(series.points) // 240)
    return [(t, v) for t, v in series.points[::step] if t >= 0]


def table_of(stats: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each latency of a summary that has values, with its plain words."""
    for name, text in METRICS.items():
        block = stats.get(name)
        if isinstance(block, Mapping) and block.get("n"):
            yield text, block
