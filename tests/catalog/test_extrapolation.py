"""What the fitted constants say of machines and models that nobody has measured."""

from dataclasses import fields, replace
from typing import Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loadstone.catalog.gpus import gpu_names, load_accelerator
from loadstone.catalog.laws import basis, load_constants, load_law
from loadstone.catalog.models import load_architecture, model_names
from loadstone.errors import NotModelledError
from loadstone.fact import Fact
from loadstone.physics.accelerator import Accelerator
from loadstone.physics.architecture import Architecture
from loadstone.physics.derive import Layout, cache_precision, derive
from loadstone.physics.steplaw import StepLaw

CONSTANTS: Final = load_constants()
FACTS: Final = (
    "fp4_dense_tflops", "fp8_dense_tflops", "bf16_dense_tflops", "hbm_bytes_per_s",
    "link_bytes_per_s", "power_limit_w",
)  # fmt: skip
"""Facts of a chip of which more is never slower."""
SIGMA: Final = Fact(
    value=0.02, unit="1", source="test", date="2026", confidence="assumed"
)

gpus = st.sampled_from(gpu_names()).map(load_accelerator)
models = st.sampled_from(model_names()).map(load_architecture)
stacks = st.sampled_from(CONSTANTS.stacks)
loads = st.tuples(
    st.floats(1, 4096), st.floats(0, 16_384), st.floats(0, 1e7), st.floats(0, 1e8)
)
"""Decoding sequences, prefill tokens, tokens of context, attention pairs."""


@st.composite
def layouts(
    draw: st.DrawFn, gpu: Accelerator, model: Architecture, tensor_parallel: int
) -> Layout:
    """Draw any layout of a model on a chip with a group of that size."""
    return Layout(
        precision=draw(st.sampled_from(("fp4", "fp8", "bf16"))),
        cache=cache_precision(gpu, model),
        tensor_parallel=tensor_parallel,
        data_parallel_attention=draw(st.booleans()) and model.experts is not None,
        graphs=draw(st.booleans()),
    )


@st.composite
def engines(draw: st.DrawFn) -> tuple[Accelerator, Architecture, Layout, str]:
    """Draw a chip, a model, a layout and a generation of the software."""
    gpu, model = draw(gpus), draw(models)
    size = draw(st.sampled_from((1, 2, 4, 8)))
    return gpu, model, draw(layouts(gpu, model, size)), draw(stacks)


def law_of(
    gpu: Accelerator, model: Architecture, layout: Layout, stack: str
) -> StepLaw:
    """Derive a law with the catalog's constants."""
    return derive(gpu, model, layout, CONSTANTS.efficiencies, stack=stack)


@given(engines(), loads, st.sampled_from(range(4)), st.floats(1, 10))
def test_more_work_never_takes_less_time(
    engine: tuple[Accelerator, Architecture, Layout, str],
    load: tuple[float, float, float, float],
    what: int,
    factor: float,
) -> None:
    """Batch, prompts, context, pairs; ten times the work at most ten times as long."""
    law = law_of(*engine)
    more = list(load)
    more[what] *= factor
    before, after = law.seconds(*load), law.seconds(*more)
    assert before <= after * (1 + 1e-12)
    assert after <= before * factor * (1 + 1e-12)


@settings(max_examples=300)
@given(engines(), loads, st.sampled_from(FACTS), st.floats(1, 4))
def test_a_better_chip_is_never_slower(
    engine: tuple[Accelerator, Architecture, Layout, str],
    load: tuple[float, float, float, float],
    fact: str,
    factor: float,
) -> None:
    """One figure of the data sheet better by `factor`: faster by no more than that."""
    gpu, model, layout, stack = engine
    assume(getattr(gpu, fact) is not None)
    better = replace(gpu, **{fact: getattr(gpu, fact) * factor})
    most = factor
    if fact == "power_limit_w":
        most **= max(1.0, CONSTANTS.efficiencies.of("power", gpu.family))
    before = law_of(gpu, model, layout, stack).seconds(*load)
    after = law_of(better, model, layout, stack).seconds(*load)
    assert after <= before * (1 + 1e-12)
    assert before <= after * most * (1 + 1e-12)


@given(engines(), loads)
def test_a_larger_group_shares_and_gets_nothing_for_nothing(
    engine: tuple[Accelerator, Architecture, Layout, str],
    load: tuple[float, float, float, float],
) -> None:
    """Twice the GPUs: each does no more of what is shared; together they do more."""
    gpu, model, layout, stack = engine
    one = law_of(gpu, model, layout, stack)
    two = law_of(
        gpu, model, replace(layout, tensor_parallel=2 * layout.tensor_parallel), stack
    )
    for shared in ("gemm_us_per_token", "pair_ns", "kv_ns_per_token", "weights_ms"):
        assert getattr(two, shared) <= getattr(one, shared) * (1 + 1e-12)
    assert two.step_ms >= one.step_ms
    assert 2 * two.seconds(*load) >= one.seconds(*load)


@given(engines(), loads, st.floats(0.5, 2))
def test_a_chip_of_an_unknown_family_is_between_those_that_are_known(
    engine: tuple[Accelerator, Architecture, Layout, str],
    load: tuple[float, float, float, float],
    scale: float,
) -> None:
    """Facts alone give it a law, with the constants that are common to all families.

    It is no faster than the fastest family would make the same chip, by the spread
    that families have: within a factor of two and a half of each.
    """
    gpu, model, layout, stack = engine
    known = law_of(gpu, model, layout, stack).seconds(*load)
    new = replace(gpu, name="new", family="new")
    strange = law_of(new, model, layout, stack).seconds(*load)
    assert 0.4 < strange / known < 2.5
    larger = replace(new, hbm_bytes_per_s=scale * new.hbm_bytes_per_s)
    faster = law_of(larger, model, layout, stack).seconds(*load)
    assert (faster <= strange) if scale >= 1 else (faster >= strange)


@pytest.mark.parametrize("kind", ["gpu", "model"])
def test_what_nobody_measured_says_transferred_and_is_less_sure(kind: str) -> None:
    """A new chip with a known model, and the other way round."""
    gpu, model = load_accelerator("gb300"), load_architecture("llama-2-70b")
    layout = Layout(precision="fp4", cache="fp8")
    known = load_law(gpu, model, layout, stack="trtllm-5.1", sigma=SIGMA)
    if kind == "gpu":
        gpu = replace(gpu, name="gb400", hbm_bytes_per_s=2 * gpu.hbm_bytes_per_s)
    else:
        model = replace(model, name="llama-5", n_layers=100)
    new = load_law(gpu, model, layout, stack="trtllm-5.1", sigma=SIGMA)
    assert (known.basis, new.basis) == ("fitted", "transferred")
    assert basis(gpu, model, CONSTANTS.pairs) == "transferred"
    # Four of five left-out points were within: more than a fifth either way.
    assert new.interval.value > 0.2 > known.interval.value
    assert all(getattr(new.law, f.name) >= 0 for f in fields(new.law))


def test_weights_wider_than_any_tensor_core_are_refused() -> None:
    """Nothing is made up for a precision that is none."""
    gpu, model = load_accelerator("h100"), load_architecture("llama-3.1-8b")
    with pytest.raises(NotModelledError, match="fp6"):
        law_of(gpu, model, Layout(precision="fp6", cache="fp8"), "vllm")
