"""A wall clock that can be set for some processes alone: for root, or nobody, to do."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("step.c")


@dataclass(frozen=True)
class WallClock:
    """The time of day of those who have its `environ`."""

    file: Path
    library: Path

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables of a process that goes by it."""
        ours = {"LD_PRELOAD": str(self.library), "STEP_FILE": str(self.file)}
        return {**os.environ, **ours}

    def set(self, seconds: int) -> None:
        """Be so far ahead of the machine's clock from now on."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(str(seconds))
        draft.rename(self.file)


def wall_clock(folder: Path) -> WallClock:
    """Make one that is right so far; skips the test where nobody compiles C."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler here: the clock of a process cannot be set")
    library = folder / "step.so"
    compiled = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library]
    subprocess.run([*compiled, _SOURCE, "-ldl"], check=True)
    clock = WallClock(folder / "step", library)
    clock.set(0)
    return clock
