"""Time to first token, from the event simulation at a run's operating point.

TTFT is queueing: the rest of a step until the next one starts, the step that prefills,
and more steps where the token budget is short. That comes out of the engine, as does
what other software than TensorRT-LLM's own engine adds to it (`physics.pipeline`): the
same engine that `simulate` and `serve` run.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from math import ceil
from random import Random
from statistics import median
from typing import Final

from ..engine.fleet import build_fleet
from ..engine.virtual import Served, serve
from ..physics.limits import EngineLimits
from ..physics.pipeline import pipeline_of
from ..physics.steplaw import StepLaw
from ..traffic.arrivals import Arrivals
from ..traffic.lengths import Lengths
from ..traffic.quantiles import nearest_rank
from ..traffic.request import Request
from ..units import Seconds
from .judgement import RATE, judge
from .operating import decode_step, mean_step
from .runs import Run
from .workloads import tables_of

SIGMA: Final = 0.02
"""Spread of a step: the lower end of what published TPOT percentiles allow."""
_BLOCK: Final = 32
_ENGINES: Final = 4
"""At most so many replicas are simulated, each with its share of the rate."""
_SAMPLES: Final = 4000
"""Requests that count; those that arrive before the batch has settled do not."""
_DRAWS: Final = 5
"""So often a run near an engine's limit is simulated, each time with other arrivals,
and the median of each percentile taken: one draw's 99th percentile is off by half."""
_LEAST_FIXED: Final = 0.25
"""Below this share of a step that does not depend on the batch an engine is at its
limit: 1 % of a step decides between no queue and one without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ttft:
    """Time to first token of a run, simulated and published."""

    run: Run
    rate: float
    """Output tokens/s of a GPU that were asked for."""
    p50_s: Seconds
    p99_s: Seconds

    @property
    def errors(self) -> tuple[float, float]:
        """Simulated over published p50 and p99, less 1."""
        point = self.run.point
        assert point.ttft_p50_ms is not None
        assert point.ttft_p99_ms is not None
        return (
            self.p50_s * 1e3 / point.ttft_p50_ms - 1,
            self.p99_s * 1e3 / point.ttft_p99_ms - 1,
        )


def unjudged(run: Run, law: StepLaw) -> str | None:
    """Say why a run's TTFT is not judged; None if it is."""
    if run.decode_s is None or None in (run.point.ttft_p50_ms, run.point.ttft_p99_ms):
        return "no time to first token published"
    if not run.stack.startswith("trtllm"):
        return "the scheduler of the submitter's vLLM is not the one that is modelled"
    if tables_of(run.point) is None:
        return "the distribution of lengths is not known"
    if _fixed_share(run, law) < _LEAST_FIXED:
        return "at the engine's limit, where 1 % of a step decides over the queue"
    return None


def simulate_ttft(run: Run, law: StepLaw) -> Ttft | None:
    """Simulate a run at its operating point; None where `unjudged` has a reason.

    That point is the published rate. Where an engine is so near its limit that a run is
    judged by its rate, the law is slowed or hastened to the published time of a token:
    the same batch, not a queue that grows because a law is 2 % too slow. There the
    figures are medians over `_DRAWS` simulations.
    """
    tables = tables_of(run.point)
    if tables is None or unjudged(run, law) is not None:
        return None
    draws = _DRAWS if judge(run, law).figure == RATE else 1
    law, rate = _settled(run, law)
    drawn = [_percentiles(run, law, rate, tables, draw) for draw in range(draws)]
    p50, p99 = map(median, zip(*drawn, strict=True))
    return Ttft(run=run, rate=rate, p50_s=p50, p99_s=p99)


def _percentiles(
    run: Run, law: StepLaw, rate: float, tables: tuple[Lengths, Lengths], seed: int
) -> tuple[Seconds, Seconds]:
    """Simulate a run once; return the median and the 99th percentile of TTFT."""
    gpus = run.layout.tensor_parallel * run.pipeline
    engines = min(_ENGINES, max(1, run.point.n_gpus // gpus))
    prompts, outputs = tables
    per_second = engines * gpus * rate / outputs.mean
    warm_up = _warm_up(run, law)
    rng = Random(f"{seed}/{run.point.id}")
    arrivals = [
        Request(i, due, prompts.draw(rng), outputs.draw(rng))
        for i, due in enumerate(
            Arrivals.parse("poisson").times(
                per_second, warm_up + _SAMPLES / per_second, rng
            )
        )
    ]
    fleet = build_fleet(
        _limits(run, arrivals),
        replace(law, sigma=SIGMA),
        engines=engines,
        seed=seed,
        router="least_loaded",
        policy="trtllm_max_util" if run.stack.startswith("trtllm") else "vllm",
        prefix_caching=False,
        pipeline=pipeline_of(run.stack, run.layout),
    )
    served = sorted(
        _ttft(done)
        for done in serve(fleet, arrivals)
        if done.request.intended_s >= warm_up
    )
    p50, p99 = nearest_rank(served, 0.5), nearest_rank(served, 0.99)
    assert p50 is not None
    assert p99 is not None
    return p50, p99


def _settled(run: Run, law: StepLaw) -> tuple[StepLaw, float]:
    """Return the law and the rate of a run's operating point."""
    rate = run.point.tokens_per_s_per_gpu
    if judge(run, law).figure == RATE:
        assert run.decode_s is not None
        law = law.slowed(run.decode_s / decode_step(run, law))
    return law, rate


def _warm_up(run: Run, law: StepLaw) -> Seconds:
    """Return the time until the batch has settled.

    A batch relaxes in an answer's time over the share of a step that does not depend on
    the batch: near its limit an engine takes many answers to settle.
    """
    assert run.decode_s is not None
    return 3 * run.lengths.output * run.decode_s / _fixed_share(run, law)


def _fixed_share(run: Run, law: StepLaw) -> float:
    """Return the share of a step that does not grow with the batch."""
    assert run.decode_s is not None
    batch = run.point.tokens_per_s_per_gpu * run.layout.tensor_parallel * run.decode_s
    step, more = mean_step(run, law, batch), mean_step(run, law, 1.01 * batch)
    return 1.0 - (more / step - 1.0) / 0.01


def _ttft(done: Served) -> Seconds:
    assert done.sequence.first_s is not None
    return done.sequence.first_s - done.request.intended_s


def _limits(run: Run, arrivals: SequenceOf[Request]) -> EngineLimits:
    longest = max(r.input_tokens + r.output_tokens for r in arrivals)
    blocks = max(int(run.cache_tokens) // _BLOCK, ceil(longest / _BLOCK))
    batch = run.ranks * min(run.batch, run.budget)
    return EngineLimits(
        max_num_seqs=batch,
        max_num_batched_tokens=run.ranks * run.budget,
        kv_blocks=blocks,
        block_size=_BLOCK,
        max_model_len=longest,
    )
