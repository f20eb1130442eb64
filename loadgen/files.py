"""Reads the files that a user names."""

from pathlib import Path

from loadstone.errors import UsageError


def read_text(path: str, what: str) -> str:
    """Read a file the user named; raises `UsageError` saying which and why not."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failed:
        reason = getattr(failed, "strerror", None) or "is not UTF-8 text"
        raise UsageError(f"cannot read the {what} {path}: {reason}") from None
