"""The fit finds what made the points, is the same each time, and says what it knows."""

from dataclasses import replace
from math import exp, log
from random import Random
from statistics import fmean

import pytest

from loadstone.calibration.constants import COMMON, FEWEST_POINTS, constants_for
from loadstone.calibration.fitting import Fit, Laws, Weighed, fit, fit_error
from loadstone.calibration.runs import Run, refusal, runs_of
from loadstone.calibration.sets import SHORTFALL, outliers, primary
from loadstone.calibration.validation import (
    Validation,
    leave_out,
    mean_error,
    sds,
    untold,
)
from loadstone.catalog.points import load_points
from loadstone.physics.derive import Efficiencies


def test_at_least_four_points_for_each_constant(whole: Fit) -> None:
    """At least four points for each constant."""
    assert len(whole.runs) >= 4 * len(whole.constants)


def test_a_factor_needs_four_points(runs: list[Run]) -> None:
    """A factor needs four points."""
    stack = "stack.rocm-7"
    with_it = [run for run in runs if run.stack == "rocm-7"]
    rest = [run for run in runs if run.stack != "rocm-7"]
    for n, fitted in ((FEWEST_POINTS - 1, False), (FEWEST_POINTS, True)):
        names = {c.name for c in constants_for(rest + with_it[:n])}
        assert (stack in names) == fitted


def test_a_familys_power_is_fitted_only_where_limits_differ(runs: list[Run]) -> None:
    """Hopper's chips have one limit; of CDNA4 one machine was run below its own."""
    names = {c.name for c in constants_for(runs)}
    assert "power@hopper" not in names
    assert {"power@blackwell", "power@cdna3", "power@cdna4"} <= names
    one = [run for run in runs if run.gpu.power_limit_w == 1400]
    assert {run.gpu.name for run in one} == {"gb300", "mi355x"}
    assert not any("power@" in c.name for c in constants_for(one))


def test_a_power_cap_that_a_row_states_is_the_machines(runs: list[Run]) -> None:
    """The same machine at 1,000 W instead of 1,400 gave 18 % less."""
    board = {run.point.id: run.gpu.power_limit_w for run in runs}
    capped = "mlperf-6.0-0033-mi355x-8gpu-llama2-70b-server"
    assert board[capped] == 1000
    assert board[capped.replace("0033", "0032")] == 1400


def test_no_constant_is_of_a_point_or_of_an_accelerator_with_a_model(
    whole: Fit, runs: list[Run]
) -> None:
    """No constant is of a point or of an accelerator with a model."""
    models = {run.model.name for run in runs}
    for constant in whole.constants:
        assert not any(model in constant.name for model in models)
        assert "mlperf-" not in constant.name


def test_runs_made_by_known_constants_give_them_back(runs: list[Run]) -> None:
    """Runs made by known constants give them back."""
    some = [run for run in runs if run.gpu.name in ("gb200", "h200", "mi325x")]
    rng = Random(3)
    truth = Efficiencies(
        {c.name: c.value * exp(rng.gauss(0, c.sd / 2)) for c in COMMON}
        | {"stack.trtllm-5.1": 0.9, "stack.trtllm-torch-6.0": 1.2}
    )
    made = [_published(run, Laws(truth)) for run in some]
    found = fit([Weighed(run) for run in made])
    assert max(map(abs, found.errors)) < 0.03
    ratio = found.efficiencies.values["stack.trtllm-torch-6.0"]
    ratio /= found.efficiencies.values["stack.trtllm-5.1"]
    assert ratio == pytest.approx(1.2 / 0.9, rel=0.1)


def test_the_same_points_give_the_same_constants(runs: list[Run]) -> None:
    """The same points give the same constants."""
    some = [Weighed(run) for run in runs if run.gpu.family == "hopper"]
    assert fit(some).logs == fit(some).logs


def test_leaving_one_out_is_what_the_leverage_says(runs: list[Run]) -> None:
    """Leaving one out is what the leverage says."""
    some = [Weighed(run) for run in runs if run.gpu.name == "h200"]
    found = fit(some)
    for i in (0, 10, 30):
        without = fit([*some[:i], *some[i + 1 :]], start=found)
        alone = fit_error(some[i].run, Laws(without.efficiencies).of(some[i].run))
        said = found.errors[i] / (1 - found.leverages[i])
        assert alone == pytest.approx(said, abs=0.03)


def test_a_changed_point_moves_its_residual_and_the_constants_only_after_a_fit(
    runs: list[Run],
) -> None:
    """A changed point moves its residual and the constants only after a fit."""
    some = [run for run in runs if run.gpu.name == "mi325x"]
    found = fit([Weighed(run) for run in some])
    point = some[0].point
    faster = replace(
        some[0],
        point=replace(point, tokens_per_s_per_gpu=1.2 * point.tokens_per_s_per_gpu),
    )
    law = Laws(found.efficiencies).of(faster)
    assert some[0].throughput
    assert fit_error(faster, law) == pytest.approx(found.errors[0] + log(1.2))
    again = fit([Weighed(run) for run in [faster, *some[1:]]])
    assert again.logs != found.logs


def test_the_primary_set_is_close(validation: Validation) -> None:
    """The primary set is close."""
    assert len(validation.primary) >= 30
    assert mean_error(validation.primary) < 0.05
    assert max(abs(row.error) for row in validation.primary) < 0.15
    assert validation.alone_error(validation.primary) < 0.09


def test_the_wide_set_is_close(validation: Validation) -> None:
    """The wide set is close."""
    rows = validation.rows
    assert len(rows) >= 100
    assert len({row.run.gpu.name for row in rows}) >= 6
    assert len({row.run.model.name for row in rows}) >= 5
    assert mean_error(rows) < 0.12


def test_four_of_five_fitted_points_are_in_their_interval(
    validation: Validation,
) -> None:
    """Four of five fitted points are in their interval."""
    assert 0.7 <= fmean(row.covered for row in validation.rows) <= 0.9


def test_the_rack_is_predicted_without_any_point_of_its_chip(whole: Fit) -> None:
    """The rack is predicted without any point of its chip."""
    fold = leave_out(whole, "accelerator", "gb300")
    assert all(w.run.gpu.name != "gb300" for w in fold.fit.runs)
    assert "silicon.gb300" not in fold.fit.efficiencies.values
    assert fmean(map(abs, fold.errors)) < 0.2
    ids = [run.point.id for run in fold.runs]
    rack = ids.index("azure-nd-gb300-v6-rack-llama2-70b-offline")
    assert abs(fold.errors[rack]) < 1.28 * fold.sds[rack]


def test_what_nothing_else_tells_is_named(whole: Fit) -> None:
    """Only CDNA4's own points tell its kernels; a fit without it knows the rest."""
    lost = untold(whole, leave_out(whole, "accelerator", "mi355x").fit)
    assert {"stack.rocm-7", "gemm.fp8@cdna4"} <= set(lost)
    assert not {"memory", "gemm.fp4", "host.sequence", "power"} & set(lost)
    assert untold(whole, whole) == ()


def test_what_was_never_seen_is_less_sure(whole: Fit, runs: list[Run]) -> None:
    """What was never seen is less sure."""
    one = runs[0]
    strange = replace(one, gpu=replace(one.gpu, name="new"), stack="new-1.0")
    known, unknown = sds(whole, [one, strange])
    assert unknown > known


def test_the_primary_set_is_one_run_of_each_system_and_scenario(
    runs: list[Run],
) -> None:
    """The primary set is one run of each system and scenario."""
    chosen = primary(runs)
    assert len({(r.stack.partition("-")[0], r.gpu.name, r.model.name,
                 r.point.scenario) for r in chosen}) == len(chosen)  # fmt: skip
    by_system: dict[tuple[str, ...], set[str]] = {}
    for run in chosen:
        key = (run.stack.partition("-")[0], run.gpu.name, run.model.name)
        by_system.setdefault(key, set()).add(run.round)
    assert all(len(rounds) == 1 for rounds in by_system.values())


def test_outliers_of_the_primary_set_are_few_and_there(runs: list[Run]) -> None:
    """Outliers of the primary set are few and there."""
    named = outliers(runs)
    assert 0 < sum(run.point.id in named for run in primary(runs)) <= 3
    assert "mlperf-6.0-0040-b200-8gpu-llama3.1-405b-server" in named
    # Slower than the same machine without its power cap, which is another machine.
    assert "mlperf-6.0-0033-mi355x-8gpu-llama2-70b-server" not in named


def test_an_outlier_is_so_by_what_others_published(runs: list[Run]) -> None:
    """Both sides of the bound; a later round's figures count for nothing."""
    of = "h100", "llama-3.1-405b", "offline"
    early, late = sorted(
        (r for r in runs if (r.gpu.name, r.model.name, r.point.scenario) == of),
        key=lambda run: run.round,
    )
    for share, named in ((SHORTFALL - 0.001, True), (SHORTFALL + 0.001, False)):
        rate = share * early.point.tokens_per_s_per_gpu
        low = replace(late, point=replace(late.point, tokens_per_s_per_gpu=rate))
        assert (late.point.id in outliers([early, low])) is named
        assert outliers([replace(early, round="9.9"), low]).keys() <= {early.point.id}


def test_what_is_not_modelled_is_refused_with_the_reason() -> None:
    """What is not modelled is refused with the reason."""
    points = {point.id: point for point in load_points()}
    for id_, reason in (
        ("mlperf-6.0-0078-gb300-72gpu-llama2-70b-server", "different workers"),
        ("mlperf-6.0-0021-h200-8gpu-llama2-70b-offline", "NVL"),
        ("trtllm-b200-4gpu-llama4-maverick-1000-1000", "llama4-maverick"),
        ("mlperf-5.0-0056-b200-8gpu-llama2-70b-server", "no latency"),
    ):
        assert reason in (refusal(points[id_]) or "")
    modelled = {run.point.id for run in runs_of(points.values())}
    assert modelled == {id_ for id_, p in points.items() if refusal(p) is None}


def _published(run: Run, laws: Laws) -> Run:
    """Return a run as constants would have published it, settings unchanged."""
    factor = exp(fit_error(run, laws.of(run)))
    point = run.point
    if run.throughput:
        rate = point.tokens_per_s_per_gpu / factor
        return replace(run, point=replace(point, tokens_per_s_per_gpu=rate))
    assert run.decode_s is not None
    assert point.ttft_mean_ms is not None
    decoding = run.decode_s * factor * (run.lengths.output - 1) * 1e3
    return replace(
        run,
        point=replace(
            point,
            e2e_mean_ms=point.ttft_mean_ms + decoding,
            # the same batch at another step
            tokens_per_s_per_gpu=point.tokens_per_s_per_gpu / factor,
        ),
    )
