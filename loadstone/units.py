"""Units by name: aliases for signatures, scale factors, durations as people write them.

Everything inside loadstone is in base units (seconds, tokens, bytes, US dollars). A
quantity in another unit says so in its name (`gemm_us_per_token`) and is scaled here.
"""

import re
from typing import Final, TypeGuard

from .errors import UsageError

Seconds = float
"""A duration or an instant in seconds; which clock an instant is on is said beside
it."""
Tokens = int
"""A count of tokens under the rule that the surrounding text names."""
Usd = float
"""US dollars."""

MS: Final = 1e-3
US: Final = 1e-6
NS: Final = 1e-9
HOUR: Final = 3600.0
YEAR: Final = 8760 * HOUR
MILLION: Final = 1e6
GB: Final = 1e9
"""Bytes of a gigabyte as networks are billed."""
MILLIJOULES: Final = 1e3
"""Of a joule: dcgm-exporter counts energy in them."""
KWH: Final = 3.6e6
"""Joules of a kilowatt-hour."""

_SCALE: Final = {"ms": MS, "s": 1.0, "m": 60.0, "min": 60.0, "h": HOUR}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h)")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value that somebody wrote is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value that somebody wrote is an integer; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def parse_duration(text: str) -> Seconds:
    """Read a duration as Locust and Go write it: `90s`, `1m30s`, `500ms`, `2h`, `45`.

    A bare number is in seconds. Raises `UsageError` for anything else, negative or
    empty.
    """
    stripped = text.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", stripped):
        return float(stripped)
    parts = _PART.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise UsageError(
            f"{text!r} is not a duration",
            hint="write it as 30s, 500ms, 1m30s or 2h",
        )
    return sum(float(number) * _SCALE[unit] for number, unit in parts)


def format_duration(seconds: Seconds) -> str:
    """Write a duration the way `parse_duration` reads it, to a whole unit: `1m30s`."""
    if seconds < 1.0:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60.0:
        return f"{seconds:g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    head = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    return head + (f"{rest}s" if rest else "")
