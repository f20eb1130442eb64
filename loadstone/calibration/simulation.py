"""Time to first token, from the event simulation at a run's operating point.

TTFT is queueing: the rest of a step until the next one starts, the step that prefills,
and more steps where the token budget is short. That comes out of the engine, and for
TensorRT-LLM's own engine it is all: the steps that an arrival meets and that prefill
are longer than the mean one. Two things that engines do beside are added here, in
steps, not in the engine: `_OVERLAP_STEPS` and `_GATHER_STEPS`.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from math import ceil
from random import Random
from typing import Final

from ..engine.fleet import build_fleet
from ..engine.sequence import Sequence, Step
from ..engine.virtual import Served, serve
from ..physics.limits import EngineLimits
from ..physics.steplaw import StepLaw
from ..traffic.arrivals import Arrivals
from ..traffic.quantiles import nearest_rank
from ..traffic.request import Request
from ..units import Seconds
from .judgement import RATE, judge
from .operating import decode_step, mean_step
from .runs import Run
from .workloads import tables_of

_OVERLAP_STEPS: Final = 1.65
"""TensorRT-LLM's PyTorch backend plans a step while the one before runs, and looks at a
token when the next step has ended. gpt-oss-120b shows it (MLPerf v6.0: 1.6 to 1.75)."""
_GATHER_STEPS: Final = 10.0
"""Data-parallel attention lets prompts in together, so that no GPU waits for another's
prefill: each waits between 0 and so many steps. DeepSeek-R1 shows it (MLPerf v6.0):
median TTFT is 8 steps, five more than without, and the 99th percentile 13."""
SIGMA: Final = 0.02
"""Spread of a step: the lower end of what published TPOT percentiles allow."""
_BLOCK: Final = 32
_ENGINES: Final = 4
"""At most so many replicas are simulated, each with its share of the rate."""
_SAMPLES: Final = 4000
"""Requests that count; those that arrive before the batch has settled do not."""
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


def simulate_ttft(run: Run, law: StepLaw, *, seed: int = 0) -> Ttft | None:
    """Simulate a run at its operating point; None where `unjudged` has a reason.

    That point is the published rate. Where an engine is so near its limit that a run is
    judged by its rate, the law is slowed or hastened to the published time of a token:
    the same batch, not a queue that grows because a law is 2 % too slow.
    """
    tables = tables_of(run.point)
    if tables is None or unjudged(run, law) is not None:
        return None
    law, rate = _settled(run, law)
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
    )
    lags = _Lags(run, rng)
    served = sorted(
        _ttft(done) + lags.of(done)
        for done in serve(fleet, arrivals, on_step=lags.on_step)
        if done.request.intended_s >= warm_up
    )
    p50, p99 = nearest_rank(served, 0.5), nearest_rank(served, 0.99)
    assert p50 is not None
    assert p99 is not None
    return Ttft(run=run, rate=rate, p50_s=p50, p99_s=p99)


class _Lags:
    """What a first token waits for beside the engine's own steps."""

    def __init__(self, run: Run, rng: Random) -> None:
        self._late = _OVERLAP_STEPS if "torch" in run.stack else 0.0
        self._gather = _GATHER_STEPS if run.layout.data_parallel_attention else 0.0
        self._rng = rng
        self._started: dict[int, list[Sequence]] = {}
        self._lags: dict[Sequence, Seconds] = {}

    def on_step(self, engine: int, step: Step) -> None:
        """Time the lag of what started a step ago by the step that followed."""
        for sequence in self._started.pop(engine, ()):
            steps = self._late + self._gather * self._rng.random()
            self._lags[sequence] = steps * (step.end_s - step.start_s)
        self._started[engine] = step.started

    def of(self, done: Served) -> Seconds:
        """Return the lag of a request; an answer of one token has no step after it."""
        return self._lags.get(done.sequence, 0.0)


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
