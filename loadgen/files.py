"""Reads the files that a user names; those that gzip packed are unpacked."""

import gzip
import zlib
from pathlib import Path

from loadstone.errors import UsageError

_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": "is packed by zstd: unpack it (gzip is read as it is)",
    b"PK\x03\x04": "is a zip archive: unpack it (gzip is read as it is)",
    b"\xfd7zXZ": "is packed by xz: unpack it (gzip is read as it is)",
    b"BZh": "is packed by bzip2: unpack it (gzip is read as it is)",
    b"PAR1": "is Parquet: write it as CSV or JSON lines",
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
}
"""What files that are no text begin with, and what to do about it."""


def read_text(path: str, what: str) -> str:
    """Read a file the user named; raises `UsageError` saying which and why not."""
    try:
        content = Path(path).read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
        for magic, what_it_is in _FOREIGN.items():
            if content.startswith(magic):
                raise UsageError(f"cannot read the {what} {path}: it {what_it_is}")
        return content.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as failed:
        reason = getattr(failed, "strerror", None) or "is not UTF-8 text"
        raise UsageError(f"cannot read the {what} {path}: {reason}") from None
