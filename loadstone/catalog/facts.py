"""The strict reader of the tables of facts."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from ..errors import CatalogError
from ..fact import Fact

_FACT_FIELDS: Final = frozenset(Fact.__dataclass_fields__)
_PROVENANCE: Final = ("source", "date", "confidence")


def read_fact(table: Mapping[str, Any], where: str) -> Fact:
    """Read one fact; raises `CatalogError` naming `where` for one that is not whole."""
    unknown = set(table) - _FACT_FIELDS
    if unknown:
        raise CatalogError(f"{where}: unknown field {min(unknown)!r}")
    for name in {"value", "low", "high"} & set(table):
        if isinstance(table[name], bool) or not isinstance(table[name], int | float):
            raise CatalogError(f"{where}: {name} {table[name]!r} is not a number")
    try:
        return Fact(**table)
    except (TypeError, ValueError) as wrong:
        raise CatalogError(f"{where}: {wrong}") from None


@cache
def read_table(name: str) -> dict[str, Any]:
    """Read one of the catalog's TOML files by its stem."""
    return tomllib.loads(files(__package__).joinpath(f"{name}.toml").read_text("utf-8"))


def entry(name: str, key: str) -> dict[str, Any]:
    """Return `key` of table `name`; raises `CatalogError` listing what there is."""
    table = read_table(name)
    if key not in table:
        raise CatalogError(
            f"no {name.rstrip('s')} {key!r} in the catalog",
            hint=f"there is: {', '.join(sorted(table))}",
        )
    found: dict[str, Any] = table[key]
    return found


def read_fields(
    name: str,
    key: str,
    *,
    plain: tuple[str, ...] = (),
    facts: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, Fact]]:
    """Read entry `key` of table `name`, as `read_entry` does."""
    return read_entry(
        entry(name, key),
        f"{name}.toml [{key}]",
        plain=plain,
        facts=facts,
        optional=optional,
    )


def read_entry(
    table: Mapping[str, Any],
    where: str,
    *,
    plain: tuple[str, ...] = (),
    facts: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, Fact]]:
    """Read an entry of exactly these fields: plain values, facts with provenance.

    `optional` facts may be missing. An entry's own source, date and confidence hold for
    those of its facts that have none. Raises `CatalogError` naming the odd field.
    """
    found = dict(table)
    inherited: dict[str, Any] = {
        field: found.pop(field) for field in _PROVENANCE if field in found
    }
    odd = ({*plain, *facts} - set(found)) | (set(found) - {*plain, *facts, *optional})
    if odd:
        raise CatalogError(f"{where}: unknown or missing field {min(odd)!r}")
    return (
        {field: found[field] for field in plain},
        {
            field: read_fact(
                _inheriting(found[field], inherited), f"{where[:-1]}.{field}]"
            )
            for field in (*facts, *optional)
            if field in found
        },
    )


def _inheriting(table: Any, inherited: dict[str, Any]) -> dict[str, Any]:
    # What is no table is refused by `read_fact`, in its own words.
    return inherited | table if isinstance(table, dict) else {"value": table}
