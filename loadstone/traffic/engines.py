"""What inference servers call the figures that we watch: one table, a row a name.

Names of vLLM 0.33, SGLang 0.5, TensorRT-LLM 1.x, NIM and the DCGM exporter, as their
sources and documentation have them; of a figure that was renamed both names are here,
and the first that a page has is read. A figure of several replicas or GPUs on a page is
their sum, or their mean where it is a share.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

RUNNING: Final = "running"
WAITING: Final = "waiting"
KV_USAGE: Final = "kv_usage"
POWER_W: Final = "power_w"
ENERGY_J: Final = "energy_j"
GPU_USAGE: Final = "gpu_usage"
PROMPT_TOKENS: Final = "prompt_tokens"
GENERATION_TOKENS: Final = "generation_tokens"
PREEMPTIONS: Final = "preemptions"

COUNTERS: Final = (ENERGY_J, PROMPT_TOKENS, GENERATION_TOKENS, PREEMPTIONS)
"""Words for what only grows; the others are levels."""
SHARES: Final = (KV_USAGE, GPU_USAGE)
"""Words for shares, 0 to 1: of several the mean is taken, of all others the sum."""

Source = Literal["vllm", "sglang", "trtllm", "nim", "dcgm"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One of our words, and the names it goes by there; `scale` makes it our unit."""

    word: str
    names: tuple[str, ...]
    scale: float = 1.0


ENGINES: Final[Mapping[Source, tuple[Reading, ...]]] = {
    "vllm": (
        Reading(RUNNING, ("vllm:num_requests_running",)),
        Reading(WAITING, ("vllm:num_requests_waiting",)),
        Reading(KV_USAGE, ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
        Reading(PROMPT_TOKENS, ("vllm:prompt_tokens_total",)),
        Reading(GENERATION_TOKENS, ("vllm:generation_tokens_total",)),
        Reading(PREEMPTIONS, ("vllm:num_preemptions_total",)),
    ),
    "sglang": (
        Reading(RUNNING, ("sglang:num_running_reqs",)),
        Reading(WAITING, ("sglang:num_queue_reqs",)),
        Reading(KV_USAGE, ("sglang:token_usage",)),
        Reading(PROMPT_TOKENS, ("sglang:prompt_tokens_total",)),
        Reading(GENERATION_TOKENS, ("sglang:generation_tokens_total",)),
    ),
    "trtllm": (
        Reading(RUNNING, ("trtllm_num_requests_running",)),
        Reading(WAITING, ("trtllm_num_requests_waiting",)),
        Reading(KV_USAGE, ("trtllm_kv_cache_utilization",)),
        Reading(PROMPT_TOKENS, ("trtllm_prompt_tokens_total",)),
        Reading(GENERATION_TOKENS, ("trtllm_generation_tokens_total",)),
    ),
    "nim": (
        Reading(RUNNING, ("num_requests_running",)),
        Reading(WAITING, ("num_requests_waiting",)),
        Reading(KV_USAGE, ("gpu_cache_usage_perc",)),
        Reading(PROMPT_TOKENS, ("prompt_tokens_total",)),
        Reading(GENERATION_TOKENS, ("generation_tokens_total",)),
        Reading(POWER_W, ("gpu_power_usage_watts",)),
        Reading(ENERGY_J, ("gpu_total_energy_consumption_joules",)),
        Reading(GPU_USAGE, ("gpu_utilization",)),
    ),
    "dcgm": (
        Reading(POWER_W, ("DCGM_FI_DEV_POWER_USAGE",)),
        # In millijoules.
        Reading(ENERGY_J, ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",), 1e-3),
        # In percent.
        Reading(GPU_USAGE, ("DCGM_FI_DEV_GPU_UTIL",), 1e-2),
    ),
}

WANTED: Final = frozenset(
    name for rows in ENGINES.values() for row in rows for name in row.names
)
"""All names that are read; a scraper may let go of any other."""


def read_engines(
    values: Iterable[tuple[str, float]],
) -> dict[Source, dict[str, float]]:
    """Return what a page says, by source and by our words.

    `values` are its samples by name, one for each set of labels. A page of several
    sources (an engine's with its GPUs' on it) has them all.
    """
    named: dict[str, list[float]] = {}
    for name, value in values:
        if name in WANTED and isfinite(value):
            named.setdefault(name, []).append(value)
    found: dict[Source, dict[str, float]] = {}
    for source, rows in ENGINES.items():
        for row in rows:
            given = next((named[name] for name in row.names if name in named), None)
            if given is not None:
                whole = sum(given) / (len(given) if row.word in SHARES else 1)
                found.setdefault(source, {})[row.word] = whole * row.scale
    return found
