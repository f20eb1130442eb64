"""Plans as files: what arrives, from whom, under which options, and what is judged.

    text = "support chat, as we see it on Mondays"

    [options]                  # those of `loadstone run`, by name
    rate = 2
    duration = "2m"

    [[class]]                  # what arrives; see `classes.FIELDS`
    name = "chat"
    input = "azure-2023-conversation-input"
    output = [50, 400]

    [[tenant]]                 # see `tenants.FIELDS`
    [[slo]]                    # as in an SLO file

The `plan.toml` of a run's folder is read as well: there the classes are in `[plan]`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from ..errors import UsageError
from ..toml_lines import at_line, line_of, parse
from . import classes, tenants
from .classes import TrafficClass
from .fields import Schema, meant, schema_of
from .slo import METRICS, STATS, Slo, slos_of
from .tenants import DEFAULT, Tenant

_KEYS: Final = ("name", "text", "options", "class", "tenant", "slo")
_OF_A_RUN: Final = ("loadstone", "plan_hash", "plan")
"""What `plan.toml` of a run's folder has besides."""
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """What a plan's file says."""

    name: str
    classes: tuple[TrafficClass, ...]
    text: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    tenants: tuple[Tenant, ...] = ()
    slos: tuple[Slo, ...] = ()


def read_plan(
    text: str, *, path: str, name: str, options: Sequence[str] | None = None
) -> PlanFile:
    """Read a plan's file; `name` is what it is called unless it says so itself.

    `options` are the names there are; None lets any pass. Raises `UsageError` naming
    the file, the line, and what was probably meant.
    """
    table = parse(text, path)
    ran = table.get("plan") if isinstance(table.get("plan"), dict) else None
    known = (*_KEYS, *_OF_A_RUN) if ran is not None else _KEYS
    for key in table:
        if key not in known:
            wrong = UsageError(f"a plan has no {key!r}", hint=meant(key, [*_KEYS]))
            raise at_line(wrong, path, line_of(text, key))
    reader = _Reader(text, path, table)
    if ran is not None:
        kinds = tuple(map(TrafficClass.from_toml, ran.get("classes", ())))
        owners = tuple(map(Tenant.from_toml, ran.get("tenants", ())))
        name = str(ran.get("scenario", name))
    else:
        kinds = reader.rows("class", TrafficClass.from_toml)
        owners = reader.rows("tenant", Tenant.from_toml)
        if not kinds:
            raise UsageError(
                f"{path}: it has no [[class]], so nothing arrives",
                hint="loadstone plan show chat prints one to begin with",
            )
    _check_tenants(reader, kinds, owners)
    return PlanFile(
        name=reader.text("name") or name,
        text=reader.text("text"),
        classes=kinds,
        tenants=owners,
        options=reader.options(options),
        slos=slos_of(table["slo"], path) if "slo" in table else (),
    )


def _check_tenants(
    reader: "_Reader", kinds: Sequence[TrafficClass], owners: Sequence[Tenant]
) -> None:
    there = [owner.name for owner in owners]
    for number, kind in enumerate(kinds):
        if kind.tenant not in (DEFAULT, *there):
            raise reader.at(
                UsageError(
                    f"no [[tenant]] is called {kind.tenant!r}",
                    hint=meant(kind.tenant, there) if there else "add one",
                ),
                "tenant", "class", number,
            )  # fmt: skip


class _Reader:
    def __init__(self, text: str, path: str, table: Mapping[str, Any]) -> None:
        self._text, self._path, self._table = text, path, table

    def at(
        self, wrong: UsageError, key: str, table: str = "", number: int = 0
    ) -> UsageError:
        line = line_of(self._text, key, table, number)
        return at_line(wrong, self._path, line)

    def text(self, key: str) -> str:
        value = self._table.get(key, "")
        if not isinstance(value, str):
            raise self.at(UsageError(f"{key}: {value!r:.60} is not a text"), key)
        return value

    def rows(
        self, name: str, read: Callable[[Mapping[str, object]], Row]
    ) -> tuple[Row, ...]:
        found = self._table.get(name, [])
        if not isinstance(found, list) or not all(isinstance(r, dict) for r in found):
            raise self.at(UsageError(f"write [[{name}]], with two brackets"), name)
        made = []
        for number, row in enumerate(found):
            try:
                made.append(read(row))
            except UsageError as wrong:
                key = getattr(wrong, "key", "")
                raise self.at(wrong, key, name, number) from None
        names = [row["name"] for row in found]
        for number, own in enumerate(names):
            if own in names[:number]:
                twice = UsageError(f"there are two [[{name}]] called {own!r}")
                raise self.at(twice, "name", name, number)
        return tuple(made)

    def options(self, known: Sequence[str] | None) -> dict[str, str]:
        table = self._table.get("options", {})
        if not isinstance(table, dict):
            raise self.at(UsageError("options is a table: write [options]"), "options")
        found = {}
        for key, value in table.items():
            name = key.replace("-", "_")
            if known is not None and name not in known:
                wrong = UsageError(f"no option {key!r}", hint=meant(name, [*known]))
                raise self.at(wrong, key, "options")
            if not isinstance(value, str | int | float):
                wrong = UsageError(f"{key}: {value!r:.60} is no value of an option")
                raise self.at(wrong, key, "options")
            found[name] = str(value)
        return found


def plan_schema(options: Mapping[str, Schema]) -> Schema:
    """Return the JSON schema of a plan's file, with these schemas of its options."""
    of_class = schema_of(classes.FIELDS, "what arrives")
    of_tenant = schema_of(tenants.FIELDS, "who asks")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a loadstone plan",
        "type": "object",
        "additionalProperties": False,
        "required": ["class"],
        "properties": {
            "name": {"type": "string", "description": "what its runs are called"},
            "text": {"type": "string", "description": "what it is, in a line"},
            "options": {
                "type": "object",
                "description": "options of `loadstone run`, by name",
                "additionalProperties": False,
                "properties": dict(options),
            },
            "class": {"type": "array", "minItems": 1, "items": of_class},
            "tenant": {"type": "array", "items": of_tenant},
            "slo": {"type": "array", "items": _SLO},
        },
    }


_SLO: Final = {
    "type": "object",
    "description": "a limit to judge the run by",
    "additionalProperties": False,
    "required": ["metric", "stat", "max_s"],
    "properties": {
        "metric": {"enum": list(METRICS)},
        "stat": {"enum": list(STATS)},
        "max_s": {"type": "number", "exclusiveMinimum": 0},
    },
}
