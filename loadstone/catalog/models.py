"""Model architectures by name, or by the name that users type."""

from dataclasses import fields
from functools import cache
from typing import Any, Final, TypeVar

from ..errors import CatalogError
from ..fact import Fact
from ..physics.architecture import Architecture, Experts, Latent
from .facts import entry, read_fields, read_table

_PARTS: Final = {"experts_": Experts, "latent_": Latent}
"""What only some models have: its facts begin with the prefix, all or none."""
_PART_FACTS: Final = tuple(
    prefix + field.name for prefix, part in _PARTS.items() for field in fields(part)
)
_SLIDING: Final = ("sliding_layers", "sliding_window", "dense_bits", "expert_bits")
_NEEDED: Final = (
    "params_total", "params_active", "n_layers", "d_model", "n_heads", "n_kv_heads",
    "head_dim", "vocab_size", "max_context_tokens",
)  # fmt: skip

_Part = TypeVar("_Part")


def model_names() -> list[str]:
    """Return the catalog's names of the models there are."""
    return sorted(read_table("models"))


def model_name(name: str) -> str:
    """Return the catalog's name of a model that is known by `name`, in any case.

    Raises `CatalogError` listing what there is.
    """
    try:
        return _aliases()[name.lower()]
    except KeyError:
        entry("models", name)  # says what there is
        raise


def read_model(name: str) -> dict[str, Fact]:
    """Read the facts of a model, by the catalog's name; raises `CatalogError`."""
    _, facts = read_fields(
        "models",
        name,
        plain=("aliases",),
        facts=_NEEDED,
        optional=(*_PART_FACTS, *_SLIDING),
    )
    return facts


def load_architecture(name: str) -> Architecture:
    """Load a model by any of its names.

    Raises `CatalogError` for one that is not there, or whose entry is malformed.
    """
    name = model_name(name)
    value: dict[str, Any] = {
        field: fact.value for field, fact in read_model(name).items()
    }
    try:
        parts = {prefix: _part(kind, prefix, value) for prefix, kind in _PARTS.items()}
        return Architecture(
            name=name,
            experts=parts["experts_"],
            latent=parts["latent_"],
            **{
                field: value[field] for field in (*_NEEDED, *_SLIDING) if field in value
            },
        )
    except (TypeError, ValueError) as wrong:
        raise CatalogError(f"models.toml [{name}]: {wrong}") from None


def _part(kind: type[_Part], prefix: str, value: dict[str, Any]) -> _Part | None:
    given = {
        field.removeprefix(prefix): figure
        for field, figure in value.items()
        if field.startswith(prefix)
    }
    return kind(**given) if given else None


@cache
def _aliases() -> dict[str, str]:
    known: dict[str, str] = {}
    for name, table in read_table("models").items():
        for alias in (name, *table.get("aliases", ())):
            if known.setdefault(alias.lower(), name) != name:
                raise CatalogError(f"models.toml: {alias!r} is the name of two models")
    return known
