"""Lengths of the published workloads, as far as a mean field needs them."""

from dataclasses import dataclass
from math import log
from typing import Final

from ..catalog.points import PublishedPoint
from ..catalog.workloads import load_lengths
from ..errors import NotModelledError
from ..traffic.lengths import Lengths as LengthTable


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


_ENDS: Final = (0.0, 0.5, 0.9, 0.99, 1.0)
_PROMPTS: Final = {
    "llama3.1-405b": (4000, 10112, 14156, 18956, 19988),
    "llama3.1-8b": (200, 784, 1479, 2118, 2540),
    "mixtral-8x7b": (40, 283, 701, 1561, 1948),
    "deepseek-r1": (100, 902, 1281, 1432, 3140),
    "gpt-oss-120b": (2300, 4593, 7935, 12416, 15330),
}
_OUTPUTS: Final = {
    "llama3.1-405b": (180, 753, 974, 1174, 1830),
    "llama3.1-8b": (129, 129, 129, 129, 129),
    "mixtral-8x7b": (4, 113, 279, 582, 1024),
    "deepseek-r1": (400, 2194, 9477, 20000, 20000),
}
"""Median, 90th, 99th percentile and maximum of MLPerf's data sets (workload_lengths of
openshift-psap/performance-dashboard, 2026-07-30). The least length is chosen so that
the mean comes out. gpt-oss: outputs are an exponential's, capped at 10,000."""


def tables_of(point: PublishedPoint) -> tuple[LengthTable, LengthTable] | None:
    """Return how prompts and outputs are distributed; None where it is not known.

    Both are scaled to the means of the run.
    """
    if point.model == "llama2-70b":
        prompts = load_lengths("mlperf-llama2-70b-input")
        outputs = load_lengths("mlperf-llama2-70b-output")
    elif point.model in _PROMPTS:
        prompts = LengthTable(_ENDS, _PROMPTS[point.model])
        outputs = (
            LengthTable(_ENDS, _OUTPUTS[point.model])
            if point.model in _OUTPUTS
            else _exponential(_DATASETS[point.model][0], 10_000)
        )
    else:
        return None
    return (
        _scaled(prompts, point.input_tokens_mean),
        _scaled(outputs, point.output_tokens_mean or outputs.mean),
    )


def _scaled(table: LengthTable, mean: float) -> LengthTable:
    scale = mean / table.mean
    return LengthTable(
        table.levels, tuple(max(1, round(n * scale)) for n in table.tokens)
    )


def _exponential(mean: float, most: int) -> LengthTable:
    levels = [i / 100 for i in range(100)]
    tokens = [max(1, min(most, round(-mean * log(1 - level)))) for level in levels]
    return LengthTable((*levels, 1.0), (*tokens, most))
