"""Reads the files that a user names; those that gzip packed are unpacked."""

import gzip
import zlib
from pathlib import Path

from loadstone.errors import UsageError

_GZIP = b"\x1f\x8b"


def read_text(path: str, what: str) -> str:
    """Read a file the user named; raises `UsageError` saying which and why not."""
    try:
        content = Path(path).read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        return content.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as failed:
        reason = getattr(failed, "strerror", None) or "is not UTF-8 text"
        raise UsageError(f"cannot read the {what} {path}: {reason}") from None
