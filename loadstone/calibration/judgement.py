"""What a run is judged by: a figure that is not true by identity.

Runs without a latency limit are judged by tokens/s. Runs at a rate are judged by the
time of an output token at that rate, as long as that is a fair question: near the limit
of an engine the slightest error of its step multiplies (an engine 2 % slower than
thought may not reach the rate at all). From a gain of `STEEP` on, the same law is asked
the other way round: for the highest rate at which a token takes no longer than was
measured.
"""

from dataclasses import dataclass
from math import exp, log
from typing import Final

from ..physics.steplaw import StepLaw
from .operating import rate_within, tokens_per_s, tpot_at
from .runs import Run

STEEP: Final = 2.0
_NUDGE: Final = 0.01

THROUGHPUT: Final = "tokens/s"
TPOT: Final = "TPOT at the rate"
RATE: Final = "rate at the TPOT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A run's figure as predicted and as published, in the figure's unit.

    tokens/s of a GPU, or seconds. `gain` is by how many per cent the prediction moves
    when the step does by one.
    """

    run: Run
    figure: str
    predicted: float
    published: float
    gain: float

    @property
    def error(self) -> float:
        """Predicted over published, less 1."""
        return self.predicted / self.published - 1.0

    def interval(self, sd: float) -> tuple[float, float]:
        """Return the prediction within `sd`, a spread of the step's logarithm."""
        reach = exp(self.gain * sd)
        return self.predicted / reach, self.predicted * reach


def judge(run: Run, law: StepLaw) -> Judged:
    """Judge a run by the figure that suits it."""
    published = run.point.tokens_per_s_per_gpu
    if run.throughput:
        return Judged(
            run=run,
            figure=THROUGHPUT,
            predicted=tokens_per_s(run, law),
            published=published,
            gain=1.0,
        )
    measured = run.decode_s
    assert measured is not None
    tpot, faster = (
        tpot_at(run, law, published),
        tpot_at(run, law, published * (1 + _NUDGE)),
    )
    if tpot is not None and faster is not None:
        # A step that is 1 % longer at every batch is 1 % longer, and as at 1 % more.
        gain = 1.0 + log(faster / tpot) / log(1 + _NUDGE)
        if gain < STEEP:
            return Judged(
                run=run, figure=TPOT, predicted=tpot, published=measured, gain=gain
            )
    rate = rate_within(run, law, measured)
    shorter = rate_within(run, law, measured / (1 + _NUDGE))
    return Judged(
        run=run,
        figure=RATE,
        predicted=rate,
        published=published,
        # A step that is 1 % longer is one that must end in 1 % less, and gives less.
        gain=1.0 + log(rate / shorter) / log(1 + _NUDGE),
    )
