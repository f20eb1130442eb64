"""A run's folder: plan before the first request, rows as they come, figures last."""

import json
import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import tomli_w

from loadstone import __version__
from loadstone.errors import LoadstoneError
from loadstone.runs import ENVIRONMENT, PLAN
from loadstone.traffic.plan import Plan

_LIBRARIES: Final = ("locust", "gevent")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`runs/<id>/`; its files have fixed names."""

    path: Path

    @classmethod
    def create(cls, out: Path, scenario: str) -> "RunFolder":
        """Make a folder in `out`, named by time and scenario, and point `latest` at it.

        Raises `LoadstoneError` when `out` cannot be written.
        """
        stem = time.strftime("%Y%m%d-%H%M%S-") + scenario
        try:
            out.mkdir(parents=True, exist_ok=True)
            path = _first_free(out, stem)
            _point_latest(out, path)
        except OSError as failed:
            raise LoadstoneError(
                f"cannot make a run folder in {out}: {failed.strerror}:"
                f" {failed.filename2 or failed.filename}",
                hint="choose --out DIR",
            ) from None
        return cls(path)

    def write_plan(self, plan: Plan, digest: str, **more: Any) -> None:
        """Write all it takes to run it again; `more` tables or values if not None."""
        table = {"loadstone": __version__, "plan_hash": digest, "plan": plan.to_toml()}
        self._write(
            PLAN,
            tomli_w.dumps(table | {k: v for k, v in more.items() if v is not None}),
        )

    def write_environment(
        self, target: dict[str, Any] | None, workers: int, **more: Any
    ) -> None:
        """Write what this ran on and against; `target`: the mock's own description."""
        self.write_json(
            ENVIRONMENT,
            {
                "loadstone": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in _LIBRARIES},
                "platform": platform.platform(),
                "cpus": os.cpu_count(),
                "workers": workers,
                "mock": target,
                **more,
            },
        )

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON document whole or not at all."""
        self._write(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, content: bytes) -> None:
        """Write a text file whole or not at all."""
        self._write(name, content.decode())

    def forget(self, pattern: str) -> None:
        """Remove files that only a run under way has."""
        for path in self.path.glob(pattern):
            path.unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        part = self.path / (name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(self.path / name)


def _first_free(out: Path, stem: str) -> Path:
    for number in range(1, 1000):
        path = out / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise FileExistsError(0, "a thousand runs in one second", str(out / stem))


def _point_latest(out: Path, path: Path) -> None:
    """Swap the `latest` link in one step, so that there always is one."""
    link = out / f".latest-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    try:
        link.replace(out / "latest")
    except OSError:
        link.unlink()
        raise
