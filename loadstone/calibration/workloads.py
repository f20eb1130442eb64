"""Lengths of the published workloads, as far as a mean field needs them."""

from dataclasses import dataclass
from typing import Final

from ..catalog.points import PublishedPoint
from ..errors import NotModelledError


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Mean tokens of prompt and output, and what their spread does to a step.

    A long output is seen in more steps: `generated` is how much of its output a
    sequence in flight has on average, E[o^2] / 2 E[o]. `prompt_square` is
    E[i^2] / E[i]^2, for the pairs of prefill attention.
    """

    prompt: float
    output: float
    generated: float
    prompt_square: float = 1.0

    @property
    def context(self) -> float:
        """Mean context of a sequence that decodes."""
        return self.prompt + self.generated

    @property
    def prompts_per_output(self) -> float:
        """Prompt tokens for each output token."""
        return self.prompt / self.output


_DATASETS: Final = {
    "llama2-70b": (273.0, 199.0, 1.9),
    "llama3.1-8b": (129.0, 65.0, 1.25),
    "llama3.1-405b": (645.0, 345.0, 1.15),
    "mixtral-8x7b": (145.0, 128.0, 1.6),
    "deepseek-r1": (3750.0, 4300.0, 1.3),
    "gpt-oss-120b": (1309.0, 1400.0, 1.25),
}
"""MLPerf's data sets: typical output, `generated` at that output, `prompt_square`.

From the means and quantiles of the MLPerf data sets (openshift-psap/
performance-dashboard, summaries of 2026-07-30), scaled to the generated means.
DeepSeek's is for outputs capped at 20,000 tokens; gpt-oss has no published output
lengths, and its figure is an exponential's.
"""


def lengths_of(point: PublishedPoint) -> Lengths:
    """Return a point's lengths; fixed ones for throughput tables.

    Raises `NotModelledError` for a data set whose lengths are not known.
    """
    if point.scenario == "throughput":
        assert point.output_tokens_mean is not None
        return Lengths(
            prompt=point.input_tokens_mean,
            output=point.output_tokens_mean,
            generated=point.output_tokens_mean / 2,
        )
    if point.model not in _DATASETS:
        raise NotModelledError(f"no output lengths for the data set of {point.model}")
    typical, generated, square = _DATASETS[point.model]
    output = point.output_tokens_mean or typical
    return Lengths(
        prompt=point.input_tokens_mean,
        output=output,
        generated=generated * output / typical,
        prompt_square=square,
    )
