"""A run's folder as it is read afterwards, by whoever judges, prints or compares it.

`runs/<id>/` holds `plan.toml` (written before the first request), `environment.json`,
`requests.jsonl` (one per worker where there are several), and at the end `summary.json`
and `metrics.prom`. A run that was killed has no summary; its rows are whole up to the
last second, and `alive.json` (one per worker) says which second that was.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import UsageError
from .traffic.accounts import Pulse
from .traffic.record import RequestRecord

PLAN: Final = "plan.toml"
ENVIRONMENT: Final = "environment.json"
SUMMARY: Final = "summary.json"
METRICS: Final = "metrics.prom"
ROWS: Final = "requests*.jsonl"
PULSES: Final = "alive*.json"
SERVER_COUNTS: Final = "server_counts.json"
"""What the mock counted of the run's requests, where that was the server."""
SERVER_METRICS: Final = "server_metrics.jsonl"
"""What the server said of itself while the run went on, where it was watched."""
SWEEP: Final = "sweep.json"
"""In the folder of a sweep, whose runs are below it: their loads and figures."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of one run, read when they are asked for."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "RunFiles":
        """Return the run in that folder; raises `UsageError` if there is none."""
        if not (path / PLAN).is_file():
            raise UsageError(
                f"{path} is not a run folder: no {PLAN} in it",
                hint="give runs/latest, or another folder that a run wrote",
            )
        return cls(path)

    @property
    def name(self) -> str:
        """The run's own name, also where it was reached by a link."""
        return self.path.resolve().name

    def plan(self) -> dict[str, Any]:
        """Return `plan.toml`: its `[plan]`, `plan_hash` and the `[options]` given."""
        try:
            return tomllib.loads((self.path / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError) as wrong:
            raise UsageError(f"cannot read {self.path / PLAN}: {wrong}") from None

    def environment(self) -> dict[str, Any]:
        """Return what it ran on and against; empty if it was not written."""
        return self._json(ENVIRONMENT) or {}

    def summary(self) -> dict[str, Any] | None:
        """Return the run's figures, or None where it was ended before they were."""
        return self._json(SUMMARY)

    def server_counts(self) -> dict[str, Any] | None:
        """Return what its servers counted, None where they were not asked."""
        return self._json(SERVER_COUNTS)

    def rows(self) -> Iterator[RequestRecord]:
        """Read the rows one by one; see `read_rows`."""
        return read_rows(self.path)

    def pulses(self) -> list[Pulse]:
        """Return the last signs of life of its processes; none of a run that ended.

        Raises `UsageError` for a file that is not one.
        """
        found = []
        for path in sorted(self.path.glob(PULSES)):
            try:
                found.append(Pulse.from_json(self._json(path.name) or {}))
            except (KeyError, TypeError, ValueError) as wrong:
                raise UsageError(f"{path} is not a sign of life: {wrong}") from None
        return found

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as wrong:
            raise UsageError(f"cannot read {path}: {wrong}") from None
        if not isinstance(content, dict):
            raise UsageError(f"{path} is not a JSON object")
        return content


def read_rows(folder: Path) -> Iterator[RequestRecord]:
    """Read all rows of a run folder.

    The last line of a file may be cut off by a kill; it is left out. Any other bad line
    raises `UsageError` naming file and line. What a later loadstone wrote beside the
    fields that are known here is passed over.
    """
    for path in sorted(folder.glob(ROWS)):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    yield RequestRecord.from_line(line)
                except ValueError as wrong:
                    raise UsageError(
                        f"{path}: line {number} is not a row: {wrong}"
                    ) from None
