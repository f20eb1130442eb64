"""A run's figures: a fold over its rows.

Percentiles are nearest rank over requests that ended ok, were not due in the warm-up,
and were due in the window if one is given (`slo` counts the others of these too, see
`Slo.judge`); `icl_s` pools the gaps of all of them. What a pipeline asked `beside` a
request that was due is counted among the requests and is no answer: it is in no
latency, objective or rate of answers. `streams` counts answers that began with
reasoning, that called tools, and whose usage names another number of tokens than came
in events. `output_tok_s` counts every output token of an answer that ended ok over the
makespan (first intended arrival to last token). `steady_output_tok_s` is the rate in
the steady window, or where there is none, while the middle 80 % of those tokens were
given. `docs/statistics.md` says what each assumes.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, Final

from ..buckets import BucketArray, LogHistogram
from ..units import Seconds
from .answers import LATENCIES, Answers, Stats, hidden
from .quantiles import QUANTILES, nearest_rank
from .record import Outcome, RequestRecord
from .slices import LOST, Attained, Slices, attainment
from .slo import Slo, meets_all
from .stages import Stages
from .steady import Spans
from .window import EVER, Steady, Window, in_flight, look

__all__ = ["LATENCIES", "Fold", "Stats", "describe", "describe_histogram", "summarize"]

_STEADY: Final = ("ttft_s", "ttft_intended_s", "tpot_s", "e2e_s", "response_time_s")
"""What is also told of the steady window alone."""


def describe(values: Iterable[float]) -> Stats:
    """Return mean, p50, p90, p95, p99 and n; without values all but n are None.

    Of few values too, as an alarm should: no claim is made by it.
    """
    ordered = sorted(values)
    mean = sum(ordered) / len(ordered) if ordered else None
    ranks = {name: nearest_rank(ordered, q) for name, q in QUANTILES.items()}
    return {"mean": mean, **ranks, "n": len(ordered)}


def describe_histogram(histogram: LogHistogram | BucketArray) -> Stats:
    """Return the same of a histogram: right to within 1 %, or an upper bound."""
    n = histogram.count
    mean = histogram.total / n if n else None
    return {
        "mean": mean,
        **{k: histogram.quantile(q) for k, q in QUANTILES.items()},
        "n": n,
    }


class Fold:
    """Folds rows into a run's figures one by one, and lets go of them.

    Percentiles are exact: of each request its begin and end are kept (16 bytes), of
    each answer its latencies and its span (92), of each that objectives judge whether
    it met them (13) and 8 for each objective.
    """

    def __init__(self, slos: tuple[Slo, ...] = (), window: Window = EVER) -> None:
        self.sent = 0
        self._slos, self._window = slos, window
        self._outcomes: Counter[Outcome] = Counter()
        self._errors: Counter[str] = Counter()
        self._between: dict[str, tuple[Seconds, Seconds]] = {}
        """When the first and the last request ended by each."""
        self._warmup = self._reconnects = self._good = 0
        self._beside = 0
        self._input = self._output = 0
        self._streams = {"reasoning": 0, "tool_calls": 0, "usage_differs": 0}
        self._begin, self._end = inf, -inf
        self._arrivals = (inf, -inf)
        """When the first and the last request outside the warm-up were due."""
        self._flights = array("d"), array("d")
        self._answers, self._slices, self._attained = Answers(), Slices(), Attained()
        self._lost = array("d")
        """When the requests that got no answer were due."""
        self._waits = [array("d") for _ in slos]
        self._spans = Spans()
        self._stages = Stages()
        self._icl = LogHistogram()

    def __repr__(self) -> str:
        return f"<Fold of {self.sent} rows>"

    @property
    def makespan_s(self) -> float:
        """First intended arrival to the last token (or end, where no token came)."""
        return self._end - self._begin if self.sent else 0.0

    def add(self, row: RequestRecord) -> None:
        """Count a row."""
        self.sent += 1
        self._outcomes[row.outcome] += 1
        self._warmup += row.warmup
        self._reconnects += row.reconnects
        self._begin = min(self._begin, row.intended_s)
        self._end = max(self._end, row.end_s if row.last_s is None else row.last_s)
        for instants, at in zip(self._flights, (row.sent_s, row.end_s), strict=True):
            instants.append(at)
        if row.error:
            self._errors[row.error] += 1
            since, until = self._between.get(row.error, (inf, -inf))
            self._between[row.error] = min(since, row.end_s), max(until, row.end_s)
        measured = not row.warmup and row.intended_s in self._window
        part = self._slices.of(row)
        part.add(row, measured=measured and not row.beside)
        if row.beside:
            if row.ok:
                self._beside += 1
                self._input += row.input_tokens
                self._output += row.output_tokens
            return
        good = meets_all(row, self._slos)
        self._good += good
        if measured:
            self._add_measured(row, part.number, good=good)
        if row.ok:
            self._add_answer(row)

    def _add_measured(self, row: RequestRecord, part: int, *, good: bool) -> None:
        first, last = self._arrivals
        self._arrivals = min(first, row.intended_s), max(last, row.intended_s)
        for slo, waits in zip(self._slos, self._waits, strict=True):
            if (wait := slo.counted_wait(row)) is not None:
                waits.append(wait)
        if self._slos and row.outcome is not Outcome.CANCELLED:
            self._attained.add(row.intended_s, part, met=good)
        if row.ok:
            self._icl.merge(row.icl)
            self._answers.add(row, part)
            self._stages.add(row)
        elif row.outcome in LOST:
            self._lost.append(row.intended_s)

    def _add_answer(self, row: RequestRecord) -> None:
        self._input += row.input_tokens
        self._output += row.output_tokens
        self._streams["reasoning"] += row.reasoned
        self._streams["tool_calls"] += row.first_tool_s is not None
        self._streams["usage_differs"] += row.usage_differs
        if row.first_s is not None and row.last_s is not None:
            self._spans.add(row.first_s, row.last_s, row.output_tokens)

    def summary(
        self, *, dropped: int = 0, icl: LogHistogram | None = None
    ) -> dict[str, Any]:
        """Return the figures so far, named as in `summary.json`.

        `dropped` requests were intended and never sent. `icl` replaces the rows' own
        gaps where they have none (virtual time).
        """
        order = self._answers.in_order()
        lost = len(self._lost) + dropped
        steady = self._steady()
        return {
            "requests": self._requests(dropped),
            "tokens": {"input": self._input, "output": self._output},
            "streams": dict(self._streams),
            "makespan_s": self.makespan_s,
            "throughput": self._throughput(steady),
            **self._answers.blocks(order, lost=lost),
            "icl_s": hidden(describe_histogram(self._icl if icl is None else icl)),
            "window": self._told(steady, order),
            "slices": self._slices.summary(self._answers, order, self._attained),
            **({"stages": stages} if (stages := self._stages.summary()) else {}),
            "goodput": (
                attainment(self._attained.in_order(), dropped) if self._slos else None
            ),
            "errors": dict(self._errors.most_common(10)),
            # Where to look in a server's log.
            "errors_between_s": {
                error: list(self._between[error])
                for error, _ in self._errors.most_common(10)
            },
            "slo": [
                slo.judge_waits(waits)
                for slo, waits in zip(self._slos, self._waits, strict=True)
            ],
        }

    def _requests(self, dropped: int) -> dict[str, int]:
        return {
            "sent": self.sent,
            **{outcome.value: self._outcomes[outcome] for outcome in Outcome},
            "dropped": dropped,
            "warmup": self._warmup,
            "reconnected": self._reconnects,
            "beside": self._beside,
        }

    def _throughput(self, steady: Steady) -> dict[str, float | None]:
        span, answers = self.makespan_s, self._outcomes[Outcome.OK] - self._beside
        some = answers > 0 and span > 0
        return {
            "output_tok_s": self._output / span if some else None,
            "steady_output_tok_s": self._steady_rate(steady) if some else None,
            "total_tok_s": (self._output + self._input) / span if some else None,
            "req_s": answers / span if some else None,
            "goodput_req_s": self._good / span if self._slos and span > 0 else None,
        }

    def _steady_rate(self, steady: Steady) -> float | None:
        if steady.window is None:
            return self._spans.rate()
        return self._spans.rate_between(steady.window.start_s, steady.window.end_s)

    def _steady(self) -> Steady:
        """Return the steady window: the given one, cut to the run, or what is found."""
        if self._window != EVER:
            return Steady.given(self._window, Window(self._begin, self._end))
        return look(self._spans, self._flights, *self._arrivals, self._end)

    def _told(self, steady: Steady, order: Sequence[int]) -> dict[str, Any]:
        window = steady.window
        told: dict[str, Any] = {"how": steady.how, "reason": steady.reason}
        if window is None:
            return told | {"start_s": None, "end_s": None}
        inside = self._answers.inside(window, order)
        told |= {
            "start_s": window.start_s,
            "end_s": window.end_s,
            "answers": len(inside),
            "output_tok_s": self._spans.rate_between(window.start_s, window.end_s),
            "in_flight": in_flight(self._flights, window),
        }
        if steady.how != "detected":
            return told
        lost = sum(due in window for due in self._lost)
        return told | self._answers.blocks(inside, lost=lost, names=_STEADY)


def summarize(
    records: Iterable[RequestRecord],
    *,
    dropped: int = 0,
    icl: LogHistogram | None = None,
    slos: tuple[Slo, ...] = (),
    window: Window = EVER,
) -> dict[str, Any]:
    """Fold rows into the run's figures at once; see `Fold`."""
    fold = Fold(slos, window)
    for row in records:
        fold.add(row)
    return fold.summary(dropped=dropped, icl=icl)
