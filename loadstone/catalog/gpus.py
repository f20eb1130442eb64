"""Accelerators by name: data-sheet figures, every fact behind."""

from typing import Any, Final

from ..errors import CatalogError
from ..fact import Fact
from ..physics.accelerator import Accelerator
from .facts import read_fields, read_table

_PLAIN: Final = ("title", "family")
_NEEDED: Final = (
    "bf16_dense_tflops", "hbm_bytes", "hbm_bytes_per_s", "link_bytes_per_s",
    "domain_gpus", "power_limit_w",
)  # fmt: skip
_PEAKS: Final = ("fp4_dense_tflops", "fp8_dense_tflops")
"""Absent where the tensor cores do not have the precision."""
_SENSORS: Final = ("power_idle_w",)
"""Of no consequence for timing."""


def gpu_names() -> list[str]:
    """Return the names of the accelerators there are."""
    return sorted(read_table("gpus"))


def read_gpu(name: str) -> tuple[dict[str, Any], dict[str, Fact]]:
    """Read what there is of an accelerator: its title and family, and its facts.

    Raises `CatalogError` for an unknown name or a malformed entry.
    """
    return read_fields(
        "gpus", name, plain=_PLAIN, facts=(*_NEEDED, *_SENSORS), optional=_PEAKS
    )


def load_accelerator(name: str) -> Accelerator:
    """Load an accelerator; raises `CatalogError` as `read_gpu` does."""
    plain, facts = read_gpu(name)
    value: dict[str, Any] = dict.fromkeys(_PEAKS)
    value |= {field: facts[field].value for field in facts if field not in _SENSORS}
    try:
        return Accelerator(name=name, family=plain["family"], **value)
    except ValueError as wrong:
        raise CatalogError(f"gpus.toml [{name}]: {wrong}") from None
