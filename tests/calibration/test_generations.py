"""What is foreseen of a software generation that no point has."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.calibration.constants import STACK_SD
from loadstone.calibration.fitting import Fit, Laws
from loadstone.calibration.generations import foreseen
from loadstone.calibration.judgement import judge
from loadstone.calibration.validation import leave_out

FACTORS = st.floats(0.3, 3.0)


@given(FACTORS)
def test_one_that_was_measured_is_itself(factor: float) -> None:
    """And no more unsure than the fit is."""
    assert foreseen("rocm-7", {"stack.rocm-7": factor, "stack.rocm-6": 1.0}) == (
        factor,
        0.0,
    )


@given(FACTORS)
def test_a_product_without_a_measured_one_starts_at_1(factor: float) -> None:
    """Other products tell nothing of it, nor of one that nobody has heard of."""
    for stack in ("rocm-7", "new-1.0"):
        known = {"stack.trtllm-torch-5.1": factor}
        assert foreseen(stack, known) == (1.0, pytest.approx(STACK_SD**2))


@given(FACTORS)
def test_one_neighbour_tells_no_pace(factor: float) -> None:
    """The same again; a step's variance of its own, and one of the unknown pace."""
    same, variance = foreseen("rocm-7", {"stack.rocm-6": factor})
    assert same == pytest.approx(factor)
    assert variance == pytest.approx(2.0 * STACK_SD**2)


@given(FACTORS, FACTORS)
def test_beyond_two_it_goes_on_at_half_their_pace(near: float, far: float) -> None:
    """Half of what moved is taken for the pace, half for a step; both by hand."""
    names = {"stack.trtllm-torch-table": near, "stack.trtllm-torch-6.0": far}
    factor, variance = foreseen("trtllm-torch-5.1", names)
    assert factor == pytest.approx(near * (near / far) ** 0.5)
    assert variance == pytest.approx(1.5 * STACK_SD**2)


@given(FACTORS, FACTORS)
def test_between_two_it_lies_in_the_middle(early: float, late: float) -> None:
    """The pace cancels, and a half of a step's variance is left."""
    names = {"stack.trtllm-torch-5.1": early, "stack.trtllm-torch-6.0": late}
    factor, variance = foreseen("trtllm-torch-table", names)
    assert factor == pytest.approx((early * late) ** 0.5)
    assert variance == pytest.approx(0.5 * STACK_SD**2)


@given(st.lists(FACTORS, min_size=3, max_size=3))
def test_the_end_of_a_line_is_less_sure_than_its_middle(known: list[float]) -> None:
    """Whatever was measured; and equal factors are foreseen as equal."""
    line = ["trtllm-5.0", "trtllm-5.1", "trtllm-table", "trtllm-6.0"]
    variances = []
    for missing in line:
        rest = [f"stack.{name}" for name in line if name != missing]
        variances.append(foreseen(missing, dict(zip(rest, known, strict=True)))[1])
        same, _ = foreseen(missing, dict.fromkeys(rest, known[0]))
        assert same == pytest.approx(known[0])
    assert max(variances[1:3]) < min(variances[0], variances[3])


def test_a_model_left_out_takes_its_generation_from_those_beside_it(
    whole: Fit,
) -> None:
    """DeepSeek-R1 alone has TensorRT-LLM's PyTorch backend of MLPerf v5.1."""
    fold = leave_out(whole, "model", "deepseek-r1")
    name = "stack.trtllm-torch-5.1"
    assert name not in fold.fit.efficiencies.values
    known = fold.efficiencies.values
    assert known[name] > known["stack.trtllm-torch-table"]
    assert known["stack.trtllm-torch-table"] > known["stack.trtllm-torch-6.0"]
    laws = Laws(fold.efficiencies)
    assert fmean(abs(judge(run, laws.of(run)).error) for run in fold.runs) < 0.2
