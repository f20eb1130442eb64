"""The canary sings on time, unless the loop was busy."""

from typing import Any

import pytest

from loadstone.buckets import BucketArray
from mock_server.canary import PERIOD_S, Canary


def test_a_punctual_loop_has_no_lag(hand_loop: Any) -> None:
    """Twenty songs a second, none late."""
    lag = BucketArray((0.001, 1.0))
    Canary(hand_loop, lag).start()
    hand_loop.run(hand_loop.time() + 1.0 + PERIOD_S / 2)
    assert lag.counts == [20, 0, 0]
    assert lag.total == pytest.approx(0.0, abs=1e-9)


def test_a_stall_counts_once_with_its_length(hand_loop: Any) -> None:
    """However many songs it swallowed."""
    lag = BucketArray((0.001, 1.0))
    canary = Canary(hand_loop, lag)
    canary.start()
    hand_loop.move_to(hand_loop.time() + PERIOD_S + 0.4)
    assert lag.counts == [0, 1, 0]
    assert lag.total == pytest.approx(0.4)
    assert repr(canary) == f"<Canary next at {100 + 2 * PERIOD_S + 0.4:.3f}s>"
