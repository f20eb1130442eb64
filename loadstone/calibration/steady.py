"""Operating points of an engine in steady state, and the step that a law gives them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Final

from ..errors import UsageError
from ..physics.steplaw import StepLaw
from ..traffic.record import RequestRecord
from ..units import MS, Seconds, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPoint:
    """One operating point as people write it down. Figures are of the whole system.

    Either `concurrency`, requests in flight in a closed loop, or `requests_per_s`, of
    an open one. Either `tpot_ms`, or `tokens_per_s` (output tokens) with `ttft_ms` and
    `concurrency`. `isl` and `osl` are mean tokens of prompt and answer.
    """

    isl: float
    osl: float
    concurrency: float | None = None
    requests_per_s: float | None = None
    tpot_ms: float | None = None
    ttft_ms: float | None = None
    tokens_per_s: float | None = None
    engines: int = 1
    """Replicas that share the load."""
    label: str = ""

    def __post_init__(self) -> None:
        """Refuse what is not one point; raises `ValueError`."""
        given = (
            self.isl, self.osl, self.concurrency, self.requests_per_s, self.tpot_ms,
            self.ttft_ms, self.tokens_per_s, self.engines,
        )  # fmt: skip
        if not all(value is None or value > 0 for value in given):
            raise ValueError("every number must be positive")
        if self.osl < 2:
            raise ValueError("osl must be 2 or more: one token has no TPOT")
        if (self.concurrency is None) == (self.requests_per_s is None):
            raise ValueError("give either concurrency or requests_per_s")
        if self.concurrency is not None and self.concurrency < self.engines:
            raise ValueError("concurrency is below one request for each engine")
        if self.tpot_ms is None and None in (
            self.tokens_per_s,
            self.ttft_ms,
            self.concurrency,
        ):
            raise ValueError(
                "give tpot_ms, or tokens_per_s with ttft_ms and concurrency"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """What a request in steady state saw while it was answered, and its TPOT.

    `others` are the requests decoding beside it in the whole system: one less than the
    concurrency of a closed loop; in an open one, Little's law of decoding.
    """

    label: str
    isl: float
    osl: float
    context: float
    """Mean tokens of context of a sequence that decodes."""
    others: float
    engines: int
    tpot_s: Seconds

    @classmethod
    def of(cls, point: OwnPoint, number: int) -> "Steady":
        """Read an operating point of fixed lengths; `number` names it if nothing else.

        Raises `UsageError` for figures that contradict each other.
        """
        decode_s = _tpot_s(point) * (point.osl - 1)
        if decode_s <= 0:
            raise UsageError(
                f"point {point.label or number}: at {point.tokens_per_s:g} tokens/s an"
                " answer would end before its first token",
                hint="ttft_ms, tokens_per_s and concurrency contradict each other",
            )
        if point.requests_per_s is not None:
            others = point.requests_per_s * decode_s
        else:
            assert point.concurrency is not None
            share = decode_s / (decode_s + (point.ttft_ms or 0.0) * MS)
            others = (point.concurrency - 1) * share
        return cls(
            label=point.label or f"point {number}",
            isl=point.isl,
            osl=point.osl,
            context=point.isl + point.osl / 2,
            others=others,
            engines=point.engines,
            tpot_s=decode_s / (point.osl - 1),
        )

    @classmethod
    def of_rows(
        cls, rows: Iterable[RequestRecord], label: str, engines: int
    ) -> "Steady":
        """Read a run's rows: what its tokens saw, whatever the load did meanwhile.

        Warm-up requests are company, not samples. Raises `UsageError` when no request
        ended ok with two tokens or more.
        """
        ended = [row for row in rows if row.ok and row.tpot_s is not None]
        samples = [row for row in ended if not row.warmup]
        if not samples:
            raise UsageError(f"{label}: no request has a TPOT")
        outputs = sum(row.output_tokens for row in samples)
        context = sum(
            row.output_tokens * (row.input_tokens + row.output_tokens / 2)
            for row in samples
        )
        after_first = sum(row.output_tokens - row.first_event_tokens for row in samples)
        return cls(
            label=label,
            isl=sum(row.input_tokens for row in samples) / len(samples),
            osl=outputs / len(samples),
            context=context / outputs,
            others=_company(ended, samples) - 1.0,
            engines=engines,
            tpot_s=sum(map(_decode_s, samples)) / after_first,
        )

    @property
    def batch(self) -> float:
        """Sequences that decode together on one engine."""
        return 1.0 + self.others / self.engines


def _decode_s(row: RequestRecord) -> Seconds:
    assert row.first_s is not None
    assert row.last_s is not None
    return row.last_s - row.first_s


def _company(ended: Sequence[RequestRecord], samples: Sequence[RequestRecord]) -> float:
    """Return how many decode at once, itself included, as a sample sees it on average.

    That is more than the mean over time where the load is uneven.
    """
    changes: list[tuple[Seconds, int, bool]] = []
    for row in ended:
        assert row.first_s is not None
        assert row.last_s is not None
        sample = not row.warmup
        changes += (row.first_s, 1, sample), (row.last_s, -1, sample)
    decoding, sampled, company, before = 0, 0, 0.0, 0.0
    for at, change, sample in sorted(changes):
        company += decoding * sampled * (at - before)
        decoding += change
        sampled += change * sample
        before = at
    return company / sum(map(_decode_s, samples))


def _tpot_s(point: OwnPoint) -> Seconds:
    if point.tpot_ms is not None:
        return point.tpot_ms * MS
    assert point.concurrency is not None
    assert point.tokens_per_s is not None
    assert point.ttft_ms is not None
    e2e_s = point.concurrency * point.osl / point.tokens_per_s
    return (e2e_s - point.ttft_ms * MS) / (point.osl - 1)


def mean_step(law: StepLaw, point: Steady, budget: Tokens) -> Seconds:
    """Return the mean step that a decoding request sees, so its TPOT.

    As many prompts start as answers end. They come one by one, so a step has a Poisson
    number of them, each a chunk of at most what the token budget leaves.
    """
    batch = point.batch
    room = max(budget - batch, 1.0)
    chunk = min(point.isl, room)
    chunks = point.others / point.engines / point.osl * point.isl / chunk
    context = batch * point.context
    return sum(
        share * _step(law, batch, number * chunk, context, point.isl)
        for number, share in enumerate(_shares(chunks, max(1, int(room // chunk))))
    )


def _shares(mean: float, most: int) -> list[float]:
    """Return how often a step has 0, 1, ... `most` chunks: Poisson, what is over waits.

    What waits is done in steps that are full, so that the mean is kept.
    """
    if mean >= most:
        return [0.0] * most + [1.0]
    shares: list[float] = []
    weight, left = exp(-mean), 1.0
    while len(shares) < most and left > _TAIL:
        shares.append(weight)
        left -= weight
        weight *= mean / len(shares)
    shares.append(max(left, 0.0))
    if len(shares) <= most:
        return shares
    done = sum(number * share for number, share in enumerate(shares))
    full = (mean - done) / (most - done)
    return [*((1 - full) * share for share in shares[:-1]),
            (1 - full) * shares[-1] + full]  # fmt: skip


_TAIL: Final = 1e-6


def _step(
    law: StepLaw, batch: float, prefill: float, context: float, isl: float
) -> Seconds:
    return law.seconds(batch, prefill, context, prefill * isl / 2)
