"""Prometheus' text format as a scraper needs it: names, labels, values.

Types, help and timestamps are skipped. A line that is none of the format is skipped
too: a page of metrics is somebody else's, and what can be read of it is.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_SAMPLES: Final = 100_000
"""A page with more is not read to its end."""

_LINE: Final = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)"  # the name
    r"(?:\{((?:[^\"}]|\"(?:[^\"\\]|\\.)*+\")*+)\})?"  # labels: texts may hold braces
    r"[ \t]+([^ \t#]+)"  # the value; a timestamp or an exemplar may follow
)
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")


class Sample(NamedTuple):
    """One line."""

    name: str
    labels: dict[str, str]
    value: float


def samples(text: str) -> Iterator[Sample]:
    """Yield the samples of a page, in order; a value that is no number is left out."""
    found = 0
    for line in text.splitlines():
        match = None if line.startswith("#") else _LINE.match(line)
        if match is None:
            continue
        name, labels, value = match.groups()
        try:
            number = float(value)
        except ValueError:
            continue
        found += 1
        if found > MAX_SAMPLES:
            return
        yield Sample(name, _labels(labels) if labels else {}, number)


def _labels(text: str) -> dict[str, str]:
    return {
        name: _ESCAPED.sub(lambda m: "\n" if m[1] == "n" else m[1], value)
        for name, value in _LABEL.findall(text)
    }
