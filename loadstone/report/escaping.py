"""Text from elsewhere, made harmless: in a page, in SVG, in a table's cell, in a URL.

A server's error, a model's name, a tenant in somebody's file: none of it is ours, and
all of it is shown. What would not be seen, such as a control character or one that
turns the direction of reading, is written out instead.
"""

import html
import re
import unicodedata
from typing import Final

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet take a cell for a formula."""
_SECRETS: Final = (
    # user:password@ and ?key=... in an address
    (re.compile(r"(?<=://)[^/\s@]+@"), "…@"),
    (re.compile(r"(?<=[?&])([^=&\s#]+)=[^&\s#\"']*"), r"\1=…"),
)


def visible(text: str) -> str:
    """Write out each character that would not be seen as itself."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in _UNSEEN and c != "\n" else c
        for c in text
    )


def escaped(text: object) -> str:
    """Return text as it may stand in a page, in SVG or in a quoted attribute."""
    return html.escape(visible(str(text)))


def shortened(text: str, most: int = 200) -> str:
    """Cut what is longer, and say so."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def without_secrets(text: str) -> str:
    """Take user, password and the values of a query out of every address in a text."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def cell(value: object) -> str:
    """Return a value for a CSV, which no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    if isinstance(value, int):
        return str(value)
    text = visible(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text


def markdown(text: object) -> str:
    """Return text as it may stand in a cell of a Markdown table."""
    plain = visible(str(text)).replace("\n", " ")
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", plain)
