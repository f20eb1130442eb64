"""A document, followed: all its commands as they are written, in one shell."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from documents import Step

PATIENCE_S = 240
_UNSHARE = ("unshare", "--user", "--net", "--map-root-user", "sh", "-c")
_LOOPBACK = 'ip link set lo up && exec "$0" "$@"'


@dataclass(frozen=True)
class Followed:
    """A step that was taken: its exit code and what it said, both outputs together."""

    step: Step
    code: int
    said: str


def alone() -> tuple[str, ...]:
    """Return what gives a command a loopback of its own, where the machine allows it.

    The ports that a document names are then free, whoever else listens on this machine.
    Elsewhere they have to be.
    """
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return ()
    tried = subprocess.run(
        [*_UNSHARE, _LOOPBACK, "true"], capture_output=True, check=False
    )
    return () if tried.returncode else (*_UNSHARE, _LOOPBACK)


def follow(
    steps: Sequence[Step],
    home: Path,
    *,
    environ: Mapping[str, str] | None = None,
    inside: Sequence[str] = (),
) -> list[Followed]:
    """Take the steps in `home`, one after the other; none after one that hung.

    What goes on is ended at the end. `inside` is what the shell is started by.
    """
    notes = home.with_name(home.name + ".notes")
    notes.mkdir()
    script = notes / "all.sh"
    script.write_text("\n".join(_script(steps, notes)), encoding="utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [*inside, "bash", str(script)], cwd=home, check=False, timeout=PATIENCE_S,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PATH": path, "COLUMNS": "80", **(environ or {})},
    )  # fmt: skip
    return [
        Followed(
            step,
            int(_read(notes / f"{number}.code") or -1),
            _read(notes / f"{number}.out"),
        )
        for number, step in enumerate(steps)
    ]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _script(steps: Sequence[Step], notes: Path) -> list[str]:
    """Write the shell's script: each step's output and code go into files."""
    # Each job has a group of its own, so that all of it can be ended.
    lines = [
        "set -m -o pipefail",
        "trap 'code=$?' ERR",
        "trap 'for job in $(jobs -p); do kill -- -$job; done; wait' EXIT",
    ]
    for number, step in enumerate(steps):
        out, code = (shlex.quote(str(notes / f"{number}.{e}")) for e in ("out", "code"))
        if step.until is None:
            lines += [
                "code=0",
                "{",
                step.text,
                f"}} >{out} 2>&1",
                f"echo $code >{code}",
            ]
            continue
        word = shlex.quote(step.until)
        lines += ["{", step.text, f"}} >{out} 2>&1 &"]
        lines += [
            "for _ in $(seq 600); do",
            f"  grep -qs -- {word} {out} && echo 0 >{code} && break",
            "  kill -0 $! 2>/dev/null || break",
            "  sleep 0.05",
            "done",
        ]
    return lines
