"""Presets of one's own: a machine of the catalog with a law fitted to own points.

A file has three tables: `machine` names the catalog's preset and how the model is laid
out on it, `law` has the constants as facts, and `fit` is the record of the fit, which
is for readers and changes nothing.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, Final

from ..errors import CatalogError
from ..physics.steplaw import StepLaw
from .facts import read_entry
from .laws import UNITS
from .presets import Preset, load_preset

MACHINE: Final = (
    "preset", "model", "precision", "tensor_parallel", "expert_parallel"
)  # fmt: skip
_OPTIONAL: Final = tuple(
    field.name for field in fields(StepLaw) if field.default is not MISSING
)
_NEEDED: Final = tuple(name for name in UNITS if name not in _OPTIONAL)
SUFFIX: Final = ".toml"
"""What tells a file's name from that of a preset of the catalog."""


def read_own_preset(text: str, name: str) -> Preset:
    """Read the text of file `name`.

    Raises `CatalogError` for what is no such file, and what `load_preset` raises.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise CatalogError(f"{name} is not TOML: {wrong}") from None
    odd = {"machine", "law", "fit"} ^ set(tables)
    if odd:
        raise CatalogError(
            f"{name}: unknown or missing table {min(odd)!r}",
            hint="`loadstone fit` writes such files",
        )
    for table in tables:
        if not isinstance(tables[table], dict):
            raise CatalogError(f"{name}: {table} is not a table")
    machine, _ = read_entry(tables["machine"], f"{name} [machine]", plain=MACHINE)
    _check_types(machine, f"{name} [machine]")
    _, facts = read_entry(
        tables["law"], f"{name} [law]", facts=_NEEDED, optional=_OPTIONAL
    )
    try:
        law = StepLaw(**{constant: fact.value for constant, fact in facts.items()})
    except ValueError as wrong:
        raise CatalogError(f"{name} [law]: {wrong}") from None
    preset = machine.pop("preset")
    return replace(_base(preset, machine, facts), law=law, basis="own", interval=None)


def _base(preset: str, machine: dict[str, Any], facts: Mapping[str, Any]) -> Preset:
    base = load_preset(preset, machine.pop("model"), **machine)
    return replace(base, facts={**base.facts, **facts})


def _check_types(machine: Mapping[str, Any], where: str) -> None:
    for field, value in machine.items():
        kind = int if field.endswith("_parallel") else str
        if type(value) is not kind:
            raise CatalogError(f"{where}: {field} {value!r} is not {kind.__name__}")
