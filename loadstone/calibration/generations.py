"""Software generations in their order of time, and what one not measured is owed.

Before a point is seen the logarithm of a product's cost moves from one generation to
the next by a pace of the product's own, for software gains with every release and young
software most, and by a step of its own: a random walk with a drift. All are as spread
as a generation's factor is (`STACK_SD`). So with a generation x that was measured, of
another one that lies t generations from it is known

    E (y - x) = 0        cov(y - x, z - x) = STACK_SD^2 (t u + min(|t|, |u|)),
                         min only where both lie on one side of x

and the measured ones tell the rest: one between two measured ones lies between them,
one before them is as far beyond as half of their pace says, and less is known of it the
further it is. A product of which nothing was measured starts at 1.
"""

from collections.abc import Mapping
from math import exp, log
from typing import Final

from ..physics.derive import Efficiencies
from .constants import STACK_SD
from .linear import inverse

_IN_TIME: Final = (
    ("trtllm-5.0", "trtllm-5.1", "trtllm-table", "trtllm-6.0"),
    ("trtllm-torch-5.1", "trtllm-torch-table", "trtllm-torch-6.0"),
    ("rocm-6", "rocm-7"),
)
"""MLPerf's rounds are of 2025-04, 2025-09 and 2026-03. TensorRT-LLM's table, undated,
has gpt-oss, a model younger (2025-08-05) than the software of v5.1, whose submissions
closed before; that it is older than v6.0's is taken so.
"""


def foreseen(stack: str, values: Mapping[str, float]) -> tuple[float, float]:
    """Return the factor of a generation and the variance of its logarithm.

    `values` are constants by name. One that is among them is known: its own factor, and
    no variance beside what the fit says.
    """
    if f"stack.{stack}" in values:
        return values[f"stack.{stack}"], 0.0
    product = next((line for line in _IN_TIME if stack in line), (stack,))
    at = product.index(stack)
    known = {
        i - at: log(values[f"stack.{other}"])
        for i, other in enumerate(product)
        if f"stack.{other}" in values
    }
    if not known:
        return 1.0, STACK_SD**2
    nearest = min(known, key=lambda t: (abs(t), t))
    base = known.pop(nearest)
    moves = {t - nearest: value - base for t, value in known.items()}
    spread = inverse([[_together(t, u) for u in moves] for t in moves])
    share = [
        sum(row[j] * _together(-nearest, u) for j, u in enumerate(moves))
        for row in spread
    ]
    move = sum(map(float.__mul__, share, moves.values()))
    told = sum(s * _together(-nearest, t) for s, t in zip(share, moves, strict=True))
    left = STACK_SD**2 * (_together(-nearest, -nearest) - told)
    return exp(base + move), left


def with_stack(constants: Efficiencies, stacks: set[str]) -> Efficiencies:
    """Return constants with a factor for each of `stacks`, foreseen if need be."""
    values = dict(constants.values)
    for stack in stacks:
        values[f"stack.{stack}"], _ = foreseen(stack, constants.values)
    return Efficiencies(values)


def _together(t: int, u: int) -> float:
    """Return the covariance of two moves from one generation, over `STACK_SD`^2."""
    common = min(abs(t), abs(u)) if t * u > 0 else 0
    return float(t * u + common)
