"""What the calibration is held to: both sides of each limit."""

from types import SimpleNamespace
from typing import Any

import pytest

from loadstone.calibration.targets import judged_targets, left_out_target


def rows(error: float) -> Any:
    """Return two rows whose mean absolute error is `error`."""
    return [SimpleNamespace(error=sign * error, covered=True) for sign in (1, -1)]


def validation(
    *, primary: float = 0.01, alone: float = 0.01, wide: float = 0.01
) -> Any:
    """Return what the targets ask of a validation."""
    return SimpleNamespace(
        primary=rows(primary),
        rows=rows(wide),
        alone_error=lambda _: alone,
        runs=[0] * 8,
        fit=SimpleNamespace(constants=[0] * 2),
    )


@pytest.mark.parametrize(
    ("name", "field", "limit"),
    [
        ("mean error over the primary set", "primary", 0.05),
        ("each point of it left out by itself", "alone", 0.09),
        ("mean error over the wide set", "wide", 0.12),
    ],
)
def test_a_mean_error_is_met_at_its_limit_and_not_above(
    name: str, field: str, limit: float
) -> None:
    """No other target moves with it."""
    for error, met in ((limit, True), (limit + 0.001, False)):
        targets = judged_targets(validation(**{field: error}))
        verdicts = {t.name: t.met for t in targets if not t.name.startswith("points")}
        assert verdicts.pop(name) is met
        assert all(verdicts.values())


def test_what_was_left_out_has_a_limit() -> None:
    """An accelerator or a model may be missed by 20 % on average."""
    assert left_out_target("h100", rows(0.2)).met
    assert not left_out_target("h100", rows(0.201)).met
