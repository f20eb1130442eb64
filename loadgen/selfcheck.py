"""The profile that `loadstone selfcheck` keeps of a machine: where it is, and whose."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from loadstone import __version__
from loadstone.errors import LoadstoneError, UsageError
from loadstone.traffic.machine import Machine, Profile, Standing

from .files import read_text

_CPUINFO: Final = Path("/proc/cpuinfo")
_MAKE: Final = "`loadstone selfcheck` makes one"


def this_machine() -> Machine:
    """Return what the profile of the machine below us is of."""
    return Machine(
        cpu=_cpu(),
        cores=_cores(),
        system=platform.system(),
        python=platform.python_version(),
        loadstone=__version__,
    )


def _cpu() -> str:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if "model name" in line)
    return next(named, platform.processor() or platform.machine())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_path(environ: Mapping[str, str]) -> Path:
    """Return where a user's profile is: `$XDG_STATE_HOME/loadstone/selfcheck.json`.

    Raises `UsageError` where the user has no home.
    """
    state = Path(environ.get("XDG_STATE_HOME", ""))
    # The XDG specification has relative paths ignored.
    if not state.is_absolute():
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError:
            raise UsageError(
                "there is no home directory to keep a selfcheck profile in",
                hint="set XDG_STATE_HOME",
            ) from None
    return state / "loadstone" / "selfcheck.json"


def write_profile(path: Path, document: Mapping[str, Any]) -> None:
    """Write a profile whole or not at all; raises `LoadstoneError` if that fails.

    What is in the document beside the profile is evidence, and not read again.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
        part.replace(path)
    except OSError as failed:
        part.unlink(missing_ok=True)
        raise LoadstoneError(
            f"cannot write the profile {path}: {failed.strerror}",
            hint="choose another --profile FILE",
        ) from None


def read_profile(path: str) -> Profile:
    """Read a profile; raises `UsageError` naming the file for anything that is none."""
    try:
        return Profile.from_json(json.loads(read_text(path, "selfcheck profile")))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"{path} is not a selfcheck profile of this version", hint=_MAKE
        ) from None


def standing(asked: str | None, environ: Mapping[str, str]) -> Standing:
    """Find the profile that a run is judged by: the one asked for, else the user's own.

    A profile of another machine or version is not used, and the standing says why; so
    it does of the user's own if there is none or it cannot be read. One that was asked
    for and cannot be read is a `UsageError`.
    """
    path = asked or ""
    try:
        path = path or str(default_path(environ))
        if not asked and not Path(path).exists():
            return Standing(path, None, f"no selfcheck profile yet: {_MAKE}")
        profile = read_profile(path)
    except UsageError as wrong:
        if asked:
            raise
        return Standing(path, None, f"{wrong.message}: {_MAKE}")
    if other := profile.machine.differences(this_machine()):
        what = ", ".join(other)
        return Standing(path, None, f"{path} is of another machine or version: {what}")
    return Standing(path, profile)
