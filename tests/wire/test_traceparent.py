"""W3C Trace Context: what is written is read, and nothing hostile gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.wire.traceparent import TraceParent

EXAMPLE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
"""The standard's own."""

ids = {
    "trace_id": st.integers(1, (1 << 128) - 1),
    "span_id": st.integers(1, (1 << 64) - 1),
    "sampled": st.booleans(),
}


def test_the_standards_example_is_read() -> None:
    """Trace, span and flag are those that the header holds."""
    parent = TraceParent.parse(EXAMPLE)
    assert parent == TraceParent(
        0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, sampled=True
    )
    assert str(parent) == EXAMPLE
    assert parent is not None
    assert parent.trace_hex == "4bf92f3577b34da6a3ce929d0e0e4736"


@given(**ids)
def test_what_is_written_is_read(trace_id: int, span_id: int, *, sampled: bool) -> None:
    """Every parent survives the header."""
    parent = TraceParent(trace_id, span_id, sampled)
    assert TraceParent.parse(str(parent)) == parent


@given(st.text(max_size=80))
def test_no_text_is_an_error(text: str) -> None:
    """Whatever a client sends is a parent or nothing."""
    parent = TraceParent.parse(text)
    assert parent is None or text[3:].startswith(parent.trace_hex)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        EXAMPLE[:-1],
        EXAMPLE + "\n",
        " " + EXAMPLE,
        EXAMPLE.upper(),
        EXAMPLE.replace("00-4", "ff-4"),
        EXAMPLE + "-more",
        EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        EXAMPLE.replace("00f067aa0ba902b7", "0" * 16),
        EXAMPLE.replace("01", "0g"),
        EXAMPLE.replace("-01", "-\u0660\u0661"),
        EXAMPLE.replace("-", "_"),
        "00-" + "a" * 100_000,
    ],
)
def test_what_the_standard_does_not_allow_is_ignored(header: str | None) -> None:
    """Zero ids, version ff, other alphabets, other lengths: as good as no header."""
    assert TraceParent.parse(header) is None


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)]
)
def test_only_the_first_flag_is_looked_at(flags: str, *, sampled: bool) -> None:
    """Later versions of the standard may set others."""
    parent = TraceParent.parse(EXAMPLE[:-2] + flags)
    assert parent is not None
    assert parent.sampled is sampled


def test_a_later_version_is_read_as_far_as_this_one_goes() -> None:
    """It may have more fields at its end."""
    later = EXAMPLE.replace("00-4", "01-4")
    assert TraceParent.parse(later) == TraceParent.parse(EXAMPLE)
    assert TraceParent.parse(later + "-more") == TraceParent.parse(EXAMPLE)
    assert TraceParent.parse(later + "more") is None
