"""What a run of `loadstone simulate` left behind."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Ran:
    """What a run of the verb left behind."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def notes(self) -> str:
        """What the run says of itself."""
        return "\n".join(self.document["instrument"]["notes"])

    @property
    def rows(self) -> bytes:
        """The run's rows as they are on disk."""
        return (self.folder / "requests.jsonl").read_bytes()


Simulate = Callable[..., Ran]
"""Runs the verb with the given arguments."""
SLO = """[[slo]]
metric = "tpot_s"
stat = "p99"
max_s = {}
"""
"""A limit on the p99 of TPOT, in seconds."""
