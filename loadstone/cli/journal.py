"""What a search or a sweep has done so far, on disk: rewritten after each trial.

The document is written whole or not at all, so a kill at any instant leaves one from
which `--resume` goes on.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from loadgen.folder import RunFolder

from ..errors import UsageError
from ..units import Seconds
from .trials import Site

_RECENT: Final = 4
"""The next trials are guessed to take as long as so many of the last did."""


@dataclass
class Journal:
    """The document of a search or a sweep: what was `asked`, and an entry a trial."""

    folder: RunFolder
    name: str
    asked: dict[str, Any]
    key: str
    """What the document calls its entries."""
    entries: list[dict[str, Any]]

    @classmethod
    def open(
        cls, site: Site, name: str, stem: str, *, entries: str, asked: dict[str, Any],
        out: Path, resume: Path | None,
    ) -> "Journal":  # fmt: skip
        """Begin one in a folder of its own, or go on with the one in `resume`.

        Raises `UsageError` where that folder has none, or one that asked for something
        else, and says what.
        """
        # As it is after a journey through JSON: tuples are lists there.
        asked = json.loads(json.dumps(asked))
        if resume is None:
            folder = RunFolder.create(out, stem)
            folder.write_plan(site.plan, "", options=site.options())
            return cls(folder, name, asked, entries, [])
        found = _read(resume / name, entries)
        differing = sorted(_differences(found["asked"], asked))
        if differing:
            raise UsageError(
                f"{resume / name} asked for something else: {', '.join(differing)}",
                hint="repeat the command that wrote it, or leave --resume out",
            )
        return cls(RunFolder(resume), name, asked, entries, found[entries])

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def pace_s(self) -> Seconds:
        """How long a trial takes, by the last ones."""
        recent = [entry["seconds"] for entry in self.entries[-_RECENT:]]
        return sum(recent) / len(recent) if recent else 0.0

    def add(self, entry: dict[str, Any]) -> None:
        """Take note of a trial, as it will be read again."""
        self.entries.append(json.loads(json.dumps(entry)))

    def relative(self, folder: Path) -> str:
        """Return a trial's folder as the document names it."""
        return str(folder.resolve().relative_to(self.path.resolve()))

    def write(self, document: dict[str, Any]) -> None:
        """Write the document with the entries."""
        document["run"] = self.path.name
        document["asked"] = self.asked
        document[self.key] = self.entries
        self.folder.write_json(self.name, document)

    def end(self, site: Site, document: dict[str, Any], tell: Callable[[], None], *,
            as_json: bool) -> None:  # fmt: skip
        """Tell it, as JSON or by `tell`, and how to go on if that was not all."""
        if as_json:
            click.echo(json.dumps(document))
        else:
            tell()
            for line in (*document["notes"], f"run folder  {self.path}"):
                click.echo(line)
        if not document["complete"]:
            site.console.print(
                f"go on with the same command and --resume {self.path}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip


def _read(path: Path, entries: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"nothing to go on with: no {path.name} in {path.parent}",
            hint="give the folder of the search or sweep itself",
        ) from None
    except (OSError, ValueError) as wrong:
        raise UsageError(f"cannot read {path}: {wrong!r}") from None
    match found:
        case {"asked": dict()} if isinstance(found.get(entries), list):
            return dict(found)
    raise UsageError(
        f"{path} is of no search or sweep: it needs a table 'asked' and a list"
        f" {entries!r}"
    )


def _differences(before: Any, now: Any, name: str = "") -> set[str]:
    """Return the names of what differs between two JSON values."""
    if isinstance(before, dict) and isinstance(now, dict):
        return {
            found
            for key in {*before, *now}
            for found in _differences(before.get(key), now.get(key), key)
        }
    return set() if before == now else {f"{name} {before!r} became {now!r}"}
