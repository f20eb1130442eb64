"""What is in flight is no garbage; what is more than that may be."""

import pytest

from loadstone.garbage import IN_USE, LEAST, is_due


@pytest.mark.parametrize(
    ("grown", "in_flight", "due"),
    [
        (LEAST - 1, 0, False),
        (LEAST, 0, True),
        (LEAST + 10 * IN_USE - 1, 10, False),
        (LEAST + 10 * IN_USE, 10, True),
    ],
)
def test_both_sides_of_the_limit(grown: int, in_flight: int, due: bool) -> None:
    """It grows with what is in flight."""
    assert is_due(grown, in_flight) is due
