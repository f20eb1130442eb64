"""What a published row says of its engine, read from its free text."""

import re
from dataclasses import dataclass, fields
from typing import Final

_NUMBERS: Final = {
    "group": r"\b(?:DEP|TP)(\d+)",
    "pipeline": r"\bPP(\d+)",
    "batch": r"(?<!max )\bbatch (\d+)",
    "budget": r"\bmax_num_tokens (\d+)",
}
_ON_GPUS: Final = re.compile(r"\bEP\d+ on (\d+) GPUs")
_FRACTION: Final = re.compile(r"\bKV fraction (0\.\d+)")
_REQUESTS: Final = re.compile(r"(\d+) requests[,;]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Engine settings as far as they are stated; None where they are not.

    `batch` and `budget` are of one GPU under data-parallel attention, else of a group.
    """

    group: int | None = None
    pipeline: int | None = None
    batch: int | None = None
    budget: int | None = None
    fraction: float | None = None
    data_parallel: bool = False
    graphs: bool | None = None
    disaggregated: bool = False
    speculative: bool = False
    requests: int | None = None

    @property
    def layout_known(self) -> bool:
        """Whether the row can lend its settings to others."""
        return self.group is not None and not self.disaggregated


def read_settings(text: str) -> Settings:
    """Read the words that submitters and vendors use; what is not there is None."""
    numbers = {name: _number(pattern, text) for name, pattern in _NUMBERS.items()}
    on_gpus = _ON_GPUS.search(text)
    if on_gpus:
        numbers["group"] = int(on_gpus[1])
    fraction = _FRACTION.search(text)
    graphs = None
    if "CUDA graphs" in text:
        graphs = "no CUDA graphs" not in text
    return Settings(
        **numbers,
        fraction=float(fraction[1]) if fraction else None,
        data_parallel=bool(
            on_gpus or "attention DP" in text or re.search(r"\bDEP\d", text)
        ),
        graphs=graphs,
        disaggregated="disaggregated" in text,
        speculative="MTP" in text,
        requests=_number(_REQUESTS, text),
    )


def _number(pattern: str | re.Pattern[str], text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None


def borrowed(own: Settings, lender: Settings) -> Settings:
    """Return `own` settings where they are stated, else those of `lender`.

    A kind of engine (`data_parallel` and the like) is stated when it is true.
    """
    stated = {
        field.name: value
        for field in fields(own)
        if (value := getattr(own, field.name)) is not None
        and value is not field.default
    }
    lent = {field.name: getattr(lender, field.name) for field in fields(lender)}
    return Settings(**(lent | {"requests": None} | stated))
