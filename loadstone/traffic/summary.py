"""A run's figures: a fold over its rows.

Percentiles are nearest rank over requests that ended ok outside the warm-up (`slo`
counts the others too, see `Slo.judge`); `icl_s` pools the gaps of all of them. What a
pipeline asked `beside` a request that was due is counted among the requests and is no
answer: it is in no latency, objective or rate of answers. `streams` counts answers that
began with reasoning, that called tools, and whose usage names another number of tokens
than came in events. `output_tok_s` counts every output
token of an answer that ended ok over the makespan (first intended arrival to last
token). `steady_output_tok_s` is the rate while the middle 80 % of those tokens were
given (each request's tokens taken as evenly spread between its first and last), which
leaves ramp and drain out.
"""

from array import array
from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import Any, Final

from ..buckets import BucketArray, LogHistogram
from .quantiles import QUANTILES, nearest_rank
from .record import Outcome, RequestRecord
from .slo import Slo, meets_all
from .stages import Stages
from .steady import Spans

LATENCIES: Final = (
    "ttft_s", "ttft_intended_s", "ttfo_s", "tpot_s", "e2e_s", "response_time_s",
    "send_lag_s",
)  # fmt: skip

Stats = dict[str, float | int | None]


def describe(values: Iterable[float]) -> Stats:
    """Return mean, p50, p90, p95, p99 and n; without values all but n are None."""
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

    Percentiles are exact: of each answer its latencies and its span are kept, some 70
    bytes, and 8 more for each objective.
    """

    def __init__(self, slos: tuple[Slo, ...] = ()) -> None:
        self.sent = 0
        self._slos = slos
        self._outcomes: Counter[Outcome] = Counter()
        self._errors: Counter[str] = Counter()
        self._warmup = self._reconnects = self._good = 0
        self._beside = 0
        self._input = self._output = 0
        self._streams = {"reasoning": 0, "tool_calls": 0, "usage_differs": 0}
        self._begin, self._end = inf, -inf
        self._latencies = {name: array("d") for name in LATENCIES}
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
        if row.error:
            self._errors[row.error] += 1
        if row.beside:
            self._beside += row.ok
            return
        for slo, waits in zip(self._slos, self._waits, strict=True):
            if (wait := slo.counted_wait(row)) is not None:
                waits.append(wait)
        self._good += meets_all(row, self._slos)
        if row.ok:
            self._add_answer(row)

    def _add_answer(self, row: RequestRecord) -> None:
        self._input += row.input_tokens
        self._output += row.output_tokens
        self._streams["reasoning"] += row.reasoned
        self._streams["tool_calls"] += row.first_tool_s is not None
        self._streams["usage_differs"] += row.usage_differs
        if row.first_s is not None and row.last_s is not None:
            self._spans.add(row.first_s, row.last_s, row.output_tokens)
        if row.warmup:
            return
        self._icl.merge(row.icl)
        self._stages.add(row)
        for name, values in self._latencies.items():
            if (value := getattr(row, name)) is not None:
                values.append(value)

    def summary(
        self, *, dropped: int = 0, icl: LogHistogram | None = None
    ) -> dict[str, Any]:
        """Return the figures so far, named as in `summary.json`.

        `dropped` requests were intended and never sent. `icl` replaces the rows' own
        gaps where they have none (virtual time).
        """
        return {
            "requests": self._requests(dropped),
            "tokens": {"input": self._input, "output": self._output},
            "streams": dict(self._streams),
            "makespan_s": self.makespan_s,
            "throughput": self._throughput(),
            **{name: describe(values) for name, values in self._latencies.items()},
            "icl_s": describe_histogram(self._icl if icl is None else icl),
            **({"stages": stages} if (stages := self._stages.summary()) else {}),
            "errors": dict(self._errors.most_common(10)),
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

    def _throughput(self) -> dict[str, float | None]:
        span, answers = self.makespan_s, self._outcomes[Outcome.OK] - self._beside
        some = answers > 0 and span > 0
        return {
            "output_tok_s": self._output / span if some else None,
            "steady_output_tok_s": self._spans.rate() if some else None,
            "total_tok_s": (self._output + self._input) / span if some else None,
            "req_s": answers / span if some else None,
            "goodput_req_s": self._good / span if self._slos and span > 0 else None,
        }


def summarize(
    records: Iterable[RequestRecord],
    *,
    dropped: int = 0,
    icl: LogHistogram | None = None,
    slos: tuple[Slo, ...] = (),
) -> dict[str, Any]:
    """Fold rows into the run's figures at once; see `Fold`."""
    fold = Fold(slos)
    for row in records:
        fold.add(row)
    return fold.summary(dropped=dropped, icl=icl)
