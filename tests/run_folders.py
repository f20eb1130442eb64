"""Every run folder that the suite leaves is audited; who damages one says so."""

from pathlib import Path
from typing import Final

from loadstone.cli.audit import audited
from loadstone.runs import PLAN, ROWS, RunFiles

_MADE_UP: Final = ".made-up"


def made_up(folder: Path) -> Path:
    """Say that a folder is no run's: a test has written it, or damaged a copy."""
    (folder / _MADE_UP).touch()
    return folder


def out_of_order(below: Path) -> list[str]:
    """Return what is wrong with the accounts of the runs below a folder."""
    found = []
    for plan in sorted(below.rglob(PLAN)):
        folder = plan.parent
        if (folder / _MADE_UP).exists() or not list(folder.glob(ROWS)):
            continue
        found += [
            f"{folder}: {check.name}: {'; '.join(check.found or ())}"
            for check in audited(RunFiles(folder))
            if check.state == "wrong"
        ]
    return found
