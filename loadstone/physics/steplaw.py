"""How long one step of a continuous-batching engine takes.

A step runs every layer once over all scheduled tokens: one per decoding sequence plus
the prefill chunks. It is a chain of several hundred serial kernels, so its terms add:

    N  = decoding sequences + prefill tokens      tokens through the GEMMs
    KV = sum of context lengths while decoding    tokens read by decode attention
    A  = sum over chunks of n * (done + n / 2)    attention pairs of prefill

    T = (W^p + (c N)^p)^(1/p) + k KV + q A + a N + s B + f
    W = dense weights + expert weights * (1 - r^N)

r is the chance that a token leaves an expert alone, so a step reads the weights of the
experts that some token of it touches. a is what a token costs outside the GEMMs:
activations and collectives. physics.derive has all of them from facts.

The p-norm is the knee between weight-bound and compute-bound GEMMs: p = 1 adds them, p
= inf would be a roofline. Against 91 step times composed from measured GB300 kernels
the additive form errs by 3.8 % and the p-norm by 2.6 %, where `max(compute, memory)`
errs by 11.7 % (docs/design.md, "The step law").
"""

from dataclasses import dataclass, fields, replace
from math import exp
from random import Random
from typing import Final

from ..units import MS, NS, US, Seconds

_TIMES: Final = ("_ms", "_us", "_ns", "_us_per_token", "_ns_per_token")
"""How the names of constants end that are times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLaw:
    """The constants of the law for one engine replica, and its step-to-step spread.

    Units are in the names: milliseconds per step, microseconds per token or sequence,
    nanoseconds per token of context or per attention pair.
    """

    weights_ms: float
    """W of a step with no tokens, experts apart. Laws that were fitted as a whole have
    kernel launches and host work in it, derived ones have those in `step_ms`."""
    gemm_us_per_token: float
    """c: GEMM cost of a token."""
    kv_ns_per_token: float
    """k: KV read of one token of context in decode attention."""
    pair_ns: float
    """q: one prefill attention pair."""
    knee: float = 1.0
    """p: 1 adds weights and GEMM; larger values let the larger hide the smaller."""
    sequence_us: float = 0.0
    """s: host cost of a sequence."""
    step_ms: float = 0.0
    """f: host cost of a step."""
    token_us: float = 0.0
    """a: activations and collectives of a token."""
    expert_weights_ms: float = 0.0
    """Reading the weights of all routed experts."""
    expert_miss: float = 0.0
    """r: the chance that a token leaves a given expert alone, 1 - active / count."""
    sigma: float = 0.0
    """Spread of a step: sigma of a lognormal factor with mean 1."""

    def __post_init__(self) -> None:
        """Refuse constants that would let time stand still or run backwards."""
        costs = (
            self.gemm_us_per_token, self.kv_ns_per_token, self.pair_ns,
            self.sequence_us, self.step_ms, self.token_us, self.expert_weights_ms,
            self.sigma,
        )  # fmt: skip
        # Asked in the affirmative: whatever is compared with a NaN is False.
        if not (
            self.knee >= 1
            and self.weights_ms > 0
            and 0 <= self.expert_miss < 1
            and all(c >= 0 for c in costs)
        ):
            raise ValueError(f"not a step law: {self!r}")

    def seconds(
        self,
        decoding: float,
        prefill: float,
        context: float,
        pairs: float,
        drafts: float = 0,
    ) -> Seconds:
        """Return the expected duration of a step.

        `decoding` sequences with `context` tokens between them decode while `prefill`
        tokens with `pairs` attention pairs are prefilled. `drafts` are verified beside
        them: GEMM work alone, for a sequence's KV is read once for all its tokens.
        Counts may be means.
        """
        tokens = decoding + prefill + drafts
        weights = self.weights_ms * MS
        if self.expert_weights_ms:
            touched = 1.0 - self.expert_miss**tokens
            weights += self.expert_weights_ms * MS * touched
        gemm = self.gemm_us_per_token * US * tokens
        p = self.knee
        matrix = weights + gemm
        if p != 1.0:
            # The larger is taken out: these are far below 1, and their powers vanish.
            larger = max(weights, gemm)
            matrix = larger * (1 + (min(weights, gemm) / larger) ** p) ** (1 / p)
        return (
            matrix
            + self.kv_ns_per_token * NS * context
            + self.pair_ns * NS * pairs
            + self.token_us * US * tokens
            + self.sequence_us * US * decoding
            + self.step_ms * MS
        )

    def slowed(self, factor: float) -> "StepLaw":
        """Return the law of an engine whose every step takes `factor` times as long."""
        costs = {
            field.name: getattr(self, field.name) * factor
            for field in fields(self)
            if field.name.endswith(_TIMES)
        }
        return replace(self, **costs)

    def noise(self, rng: Random) -> float:
        """Draw the factor of one step: lognormal, mean 1."""
        if self.sigma == 0.0:
            return 1.0
        return exp(rng.gauss(-0.5 * self.sigma * self.sigma, self.sigma))
