"""A server's garbage is collected when nobody waits, or when there is much of it."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server.collector import (
    BUSY_LEAST,
    IDLE_LEAST,
    LOOK_S,
    Collector,
    is_due,
)

COUNTS = st.integers(0, 10 * BUSY_LEAST)


class Knot:
    """Garbage that only the collector can free."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def held() -> Iterator[list[Any]]:
    """Collect before, so that what is counted is the test's own."""
    gc.collect()
    yield []
    gc.collect()


@pytest.mark.parametrize(
    ("grown", "known", "idle", "due"),
    [
        (IDLE_LEAST, 0, True, True),
        (IDLE_LEAST - 1, 0, True, False),
        (IDLE_LEAST, 10 * BUSY_LEAST, True, True),
        (BUSY_LEAST - 1, 0, False, False),
        (BUSY_LEAST, 0, False, True),
        (BUSY_LEAST, BUSY_LEAST + 1, False, False),
        (BUSY_LEAST + 1, BUSY_LEAST + 1, False, True),
    ],
)
def test_both_sides_of_each_limit(
    grown: int, known: int, idle: bool, due: bool
) -> None:
    """As many as lived before must have come, and never fewer than the least."""
    assert is_due(grown, known, idle=idle) is due


@given(st.lists(COUNTS, min_size=1), st.booleans())
def test_the_work_is_in_proportion_to_what_was_made(
    made: list[int], idle: bool
) -> None:
    """Where all of it lives on, twice as many objects are looked at as were made."""
    known = grown = walked = 0
    for more in made:
        grown += more
        if is_due(grown, known, idle=False):
            known, grown = known + grown, 0
            walked += known
        assert grown <= max(BUSY_LEAST, known) + more
    assert walked <= 2 * sum(made)
    assert is_due(grown, known, idle=True) or grown < IDLE_LEAST


@pytest.mark.parametrize("idle", [True, False])
def test_a_cycle_is_freed_when_its_time_has_come(
    hand_loop: Any, held: list[Any], idle: bool
) -> None:
    """At once where nobody is inside; else once there is as much as it takes."""
    least = IDLE_LEAST if idle else BUSY_LEAST
    collector = Collector(hand_loop, idle=lambda: idle)
    collector.start()
    try:
        knot = weakref.ref(Knot())
        held += [[] for _ in range(least // 2)]
        hand_loop.run(hand_loop.time() + LOOK_S)
        assert knot() is not None
        held += [[] for _ in range(least // 2)]
        hand_loop.run(hand_loop.time() + LOOK_S)
        assert knot() is None
    finally:
        collector.stop()


def test_what_it_took_over_it_gives_back(hand_loop: Any, held: list[Any]) -> None:
    """Python collects by itself before and after, and never in between."""
    assert gc.isenabled()
    collector = Collector(hand_loop, idle=lambda: False)
    collector.start()
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0
    knots = weakref.WeakSet(Knot() for _ in range(1000))
    held += [[] for _ in range(IDLE_LEAST)]
    hand_loop.run(hand_loop.time() + 10 * LOOK_S)
    assert len(knots) == 1000
    collector.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert not knots
