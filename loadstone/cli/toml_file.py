"""A TOML file that somebody wrote for us."""

from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..toml_lines import parse


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """Return its text, for lines to be told, and what it says.

    Raises `UsageError` for one that cannot be read or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failed:
        raise UsageError(f"cannot read {path}: {failed}") from None
    return text, parse(text, str(path))
