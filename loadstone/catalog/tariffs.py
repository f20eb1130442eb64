"""Price lists by name, and a user's own: every figure with source, date, confidence.

Four layers, each winning over the one before: what holds for every site, what holds
for a provider's, the power that the GPU draws, and the list's own figures. A user's
file may begin from a list of the catalog (`like`).
"""

from collections.abc import Mapping
from typing import Any, Final

from ..cost.terms import BASES, TERMS, TERMS_OF_RENT, Tariff, in_own_unit
from ..errors import CatalogError, UsageError
from ..fact import Fact
from ..toml_lines import line_of, parse
from ..units import is_whole
from .boards import load_board
from .facts import entry, read_entry, read_table
from .gpus import gpu_names

_PLAIN: Final = ("title", "basis", "gpu", "gpus")
_PROVENANCE: Final = ("source", "date", "confidence")
_OWN: Final = ("like", *_PLAIN, "agreed", "provider", *_PROVENANCE)
_RESERVED: Final = "-reserved-3y"
_BY_TIME: Final = ("rent", "own", "provisioned")
EXAMPLE: Final = 'write like = "azure-nd-gb300-v6" and usd_per_vm_hour = 80.0'


def price_names() -> list[str]:
    """Return the names of the prices there are."""
    return sorted(read_table("prices"))


def price_of_preset(name: str) -> str | None:
    """Return the name of a preset's price; None for one that is not in the catalog."""
    price = read_table("presets").get(name, {}).get("price")
    return None if price is None else str(price)


def alternatives(gpu: str) -> list[Tariff]:
    """Return the other ways to have a GPU: reserved, bought."""
    names = [
        name
        for name, table in read_table("prices").items()
        if table["gpu"] == gpu and (table["basis"] == "own" or name.endswith(_RESERVED))
    ]
    return [load_tariff(name) for name in names]


def load_tariff(name: str) -> Tariff:
    """Load a price list; raises `CatalogError` when there is none of that name."""
    table = dict(entry("prices", name))
    provider = table.pop("provider", None)
    agreed = table.pop("agreed", TERMS_OF_RENT[0])
    where = f"prices.toml [{name}]"
    plain, facts = read_entry(table, where, plain=_PLAIN, optional=tuple(TERMS))
    layers = _below(plain["basis"], plain["gpu"], provider)
    return Tariff(
        name=name,
        title=plain["title"],
        basis=plain["basis"],
        gpus=plain["gpus"],
        agreed=agreed,
        gpu=plain["gpu"],
        facts=layers | {term: _checked(term, f, where) for term, f in facts.items()},
    )


def read_tariff(text: str, name: str) -> Tariff:
    """Read a user's price list (TOML).

    Raises `UsageError` naming file and line for what is unknown, or cannot be.
    """
    table = parse(text, name)
    for key in table:
        if key not in TERMS and key not in _OWN:
            raise UsageError(
                f"{name}, line {line_of(text, key)}: unknown key {key!r}",
                hint=f"there is: {', '.join((*_OWN, *TERMS))}",
            )
    birth = {"source": name, "date": "undated", "confidence": "assumed"} | {
        key: table[key] for key in _PROVENANCE if key in table
    }
    try:
        own = {
            key: _own_fact(key, value, birth, text, name)
            for key, value in table.items()
            if key in TERMS
        }
        return _own_tariff(table, own, text, name)
    except CatalogError as wrong:
        raise UsageError(f"{name}: {wrong.message}", hint=wrong.hint) from None


def _own_tariff(
    table: Mapping[str, Any], own: dict[str, Fact], text: str, name: str
) -> Tariff:
    like = table.get("like")
    base = None if like is None else load_tariff(_text(table, "like", text, name))
    basis = _text(table, "basis", text, name) if "basis" in table else None
    if base is None and basis is None:
        raise UsageError(f"{name}: neither like nor basis", hint=EXAMPLE)
    basis = basis or (base.basis if base else "")
    gpu = _text(table, "gpu", text, name) if "gpu" in table else None
    if gpu is not None and gpu not in gpu_names():
        line = line_of(text, "gpu")
        raise UsageError(
            f"{name}, line {line}: no GPU {gpu!r}", hint=f"one of {gpu_names()}"
        )
    inherited = dict(base.facts) if base else {}
    if base is None or gpu is not None:
        inherited |= _below(basis, gpu, table.get("provider"))
    for group in BASES.get(basis, ()):
        if set(group) & set(own):
            inherited = {k: v for k, v in inherited.items() if k not in group}
    gpus = table.get("gpus", base.gpus if base else 0)
    if not is_whole(gpus) or gpus < 0 or (basis in ("rent", "own") and not gpus):
        raise UsageError(
            f"{name}, line {line_of(text, 'gpus')}: gpus must say how many a VM has,"
            f" not {gpus!r}"
        )
    return Tariff(
        name=name.rpartition("/")[2].removesuffix(".toml"),
        title=str(table.get("title", base.title if base else name)),
        basis=basis,
        gpus=gpus,
        agreed=str(table.get("agreed", base.agreed if base else TERMS_OF_RENT[0])),
        gpu=gpu or (base.gpu if base else ""),
        facts=_drawing_more_busy(inherited | own),
    )


def _drawing_more_busy(facts: dict[str, Fact]) -> dict[str, Fact]:
    idle, load = facts.get("gpu_idle_w"), facts.get("gpu_load_w")
    if idle is not None and load is not None and idle.value > load.value:
        raise CatalogError(
            f"gpu_idle_w {idle.value:g} W is more than gpu_load_w {load.value:g} W"
        )
    return facts


def _own_fact(
    key: str, value: Any, birth: Mapping[str, str], text: str, name: str
) -> Fact:
    table = value if isinstance(value, dict) else {"value": value}
    table = {"unit": TERMS[key].unit, **birth, **table}
    where = f"{name}, line {line_of(text, key)}: {key}"
    try:
        _, found = read_entry({key: table}, f"{where} ", optional=(key,))
    except CatalogError as wrong:
        reason = wrong.message.rpartition("]: ")[2]
        raise UsageError(f"{where}: {reason}") from None
    try:
        return in_own_unit(key, found[key])
    except ValueError as wrong:
        raise UsageError(f"{where}: {wrong}") from None


def _below(basis: str, gpu: str | None, provider: Any) -> dict[str, Fact]:
    """Return the figures of the site and of the GPU, under a list's own."""
    if basis not in _BY_TIME:
        return {}
    layers = _site("common")
    if provider is not None:
        layers |= _site(str(provider))
    return layers | (_power(gpu) if gpu else {})


def _site(name: str) -> dict[str, Fact]:
    where = f"site.toml [{name}]"
    _, facts = read_entry(entry("site", name), where, optional=tuple(TERMS))
    return {term: _checked(term, fact, where) for term, fact in facts.items()}


def _power(gpu: str) -> dict[str, Fact]:
    facts = load_board(gpu).facts
    found = {
        "gpu_idle_w": facts["power_idle_w"],
        "gpu_load_w": facts["power_limit_w"],
    }
    rest = _rest_of_rack(gpu, facts["power_limit_w"].value)
    return found if rest is None else found | {"rest_w_per_gpu": rest}


def _rest_of_rack(gpu: str, load_w: float) -> Fact | None:
    """Return what a rack draws beside its GPUs, for each; None if none was published.

    The rack's published figure is of full load: what its GPUs draw then is taken off.
    """
    for name, machine in read_table("presets").items():
        if machine["gpu"] != gpu or "rack_it_w" not in machine:
            continue
        inherited = {k: machine[k] for k in _PROVENANCE}
        rack = inherited | machine["rack_it_w"]
        gpus = machine["gpus_per_vm"]["value"] * machine["vms_per_rack"]["value"]
        return Fact(
            value=(rack["value"] - gpus * load_w) / gpus,
            unit="W",
            source=f"preset {name}: {rack['value']:g} W less {gpus} GPUs of"
            f" {load_w:g} W; {rack['source']}",
            date=rack["date"],
            confidence="derived",
        )
    return None


def _checked(term: str, fact: Fact, where: str) -> Fact:
    try:
        return in_own_unit(term, fact)
    except ValueError as wrong:
        raise CatalogError(f"{where}: {term}: {wrong}") from None


def _text(table: Mapping[str, Any], key: str, text: str, name: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value:
        line = line_of(text, key)
        raise UsageError(f"{name}, line {line}: {key} {value!r} is not a name")
    return value
