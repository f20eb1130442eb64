"""One fit across the published points, for all tests that need it."""

import pytest

from loadstone.calibration.fitting import Fit, fit
from loadstone.calibration.runs import Run, runs_of
from loadstone.calibration.validation import Validation, weigh
from loadstone.catalog.points import load_points


@pytest.fixture(scope="session")
def runs() -> list[Run]:
    """Return the published points that are modelled."""
    return runs_of(load_points())


@pytest.fixture(scope="session")
def whole(runs: list[Run]) -> Fit:
    """Return the fit to all of them."""
    return fit(weigh(runs))


@pytest.fixture(scope="session")
def validation(whole: Fit) -> Validation:
    """Return the fit held against its points."""
    return Validation(whole, {})
