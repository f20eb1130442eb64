"""What a prompt waits for beside the queue: how serving software looks at arrivals.

Two things, both in steps of the engine, so that they scale with what a step costs:

- *Overlap.* A step is planned while the one before runs, and a token is looked at when
  the next step has ended. So what happens in an engine that is busy counts this many
  steps late. An engine that was idle plans at once.
- *Gathering.* Under data-parallel attention prompts are let in together, so that no GPU
  waits for another's prefill: at one step in so many, and at once by an engine that has
  nothing else to do.

Both delay the start of an answer. What follows is shifted with it, so the time of an
output token stays what the step law says.
"""

from dataclasses import dataclass
from typing import Final

from .derive import Layout


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How late an engine looks at what arrives, and at how many of its steps."""

    overlap_steps: float = 0.0
    gather_steps: int = 1
    """Prompts are let in at one of so many steps; 1 is at every step."""

    def __post_init__(self) -> None:
        """Refuse what no software does; raises `ValueError`."""
        # Asked in the affirmative: whatever is compared with a NaN is False.
        if not (self.overlap_steps >= 0 and self.gather_steps >= 1):
            raise ValueError(f"not a pipeline: {self!r}")

    @property
    def words(self) -> str:
        """What it does to prompts; empty if nothing."""
        said = []
        if self.overlap_steps:
            said.append(f"seen {self.overlap_steps:g} steps late")
        if self.gather_steps > 1:
            said.append(f"let in at one step of {self.gather_steps}")
        return f"prompts {' and '.join(said)}" if said else ""


DIRECT: Final = Pipeline()
"""Every step looks at all that came before it."""
_OVERLAP_STEPS: Final = 1.65
"""TensorRT-LLM's PyTorch backend; gpt-oss-120b shows it (MLPerf v6.0: 1.6 to 1.75)."""
_GATHER_STEPS: Final = 10
"""DeepSeek-R1 shows it (MLPerf v6.0): median TTFT is 8 steps, five more than without.
It is TensorRT-LLM's `batching_wait_iters`."""


def pipeline_of(stack: str, layout: Layout) -> Pipeline:
    """Return the pipeline of a software generation serving a model so laid out."""
    torch = stack.startswith("trtllm-torch")
    return Pipeline(
        overlap_steps=_OVERLAP_STEPS if torch else 0.0,
        gather_steps=_GATHER_STEPS if layout.data_parallel_attention else 1,
    )
