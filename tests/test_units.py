"""Durations as people write them, and the clock that stands still."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.clock import ManualClock
from loadstone.errors import UsageError
from loadstone.units import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("500ms", 0.5),
        ("1m30s", 90.0),
        ("2h", 7200.0),
        ("1h1m1s1ms", 3661.001),
        ("5min", 300.0),
        ("1.5h", 5400.0),
        ("0.25s", 0.25),
        ("45", 45.0),
        ("2.5", 2.5),
        ("0", 0.0),
        ("0s", 0.0),
        ("  10s\n", 10.0),
    ],
)
def test_durations_that_people_write(text: str, seconds: float) -> None:
    """Units of Go and Locust, several in a row; a bare number is in seconds."""
    assert parse_duration(text) == pytest.approx(seconds, abs=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "-5s", "-5", "+5s", "5 s", "1m 30s", "1,5s", "5S", "5d", "1e3", "5.",
     ".5s", "inf", "nan", "5s!", "5sm", "0x10", "1:30"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Nothing is guessed: the error repeats the text and shows how to write one."""
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert caught.value.message == f"{text!r} is not a duration"
    assert "1m30s" in caught.value.hint


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.0004, "0ms"),
        (0.25, "250ms"),
        (1.0, "1s"),
        (59.5, "59.5s"),
        (60.0, "1m"),
        (90.0, "1m30s"),
        (90.4, "1m30s"),
        (3600.0, "1h"),
        (3601.0, "1h1s"),
        (3660.0, "1h1m"),
        (7325.0, "2h2m5s"),
    ],
)
def test_durations_are_written_short(seconds: float, text: str) -> None:
    """Units that are zero are left out."""
    assert format_duration(seconds) == text


@given(st.floats(0.0, 1e6))
def test_what_is_written_can_be_read(seconds: float) -> None:
    """To a millisecond below a second, six digits below a minute, a second above."""
    slack = 0.0005 if seconds < 1 else 0.00005 if seconds < 60 else 0.5
    assert parse_duration(format_duration(seconds)) == pytest.approx(
        seconds, abs=slack * 1.000001
    )


def test_manual_clock_goes_forwards_only() -> None:
    """It stands still until moved; to the same instant is no move, back is an error."""
    clock = ManualClock(2.0)
    assert (clock.now(), repr(clock)) == (2.0, "<ManualClock at 2.000000s>")
    clock.advance_to(2.0)
    clock.advance_to(3.5)
    assert clock.now() == 3.5
    with pytest.raises(ValueError, match=r"clock at 3\.5 cannot go back to 3\.4"):
        clock.advance_to(3.4)
    assert clock.now() == 3.5
