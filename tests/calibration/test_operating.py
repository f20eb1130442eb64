"""The mean field against the event simulation, and its own inverse."""

from random import Random

import pytest

from loadstone.calibration.fitting import Fit, Laws
from loadstone.calibration.judgement import RATE, STEEP, THROUGHPUT, TPOT, judge
from loadstone.calibration.operating import rate_within, tokens_per_s, tpot_at
from loadstone.calibration.runs import Run
from loadstone.calibration.simulation import simulate_ttft, unjudged
from loadstone.calibration.workloads import tables_of
from loadstone.engine.fleet import build_fleet
from loadstone.engine.virtual import serve
from loadstone.physics.limits import EngineLimits
from loadstone.traffic.request import Request


def test_offline_as_the_event_simulation_has_it(whole: Fit, runs: list[Run]) -> None:
    """Offline as the event simulation has it."""
    run = _named(runs, "mlperf-6.0-0078-gb300-72gpu-llama2-70b-offline")
    law = Laws(whole.efficiencies).of(run)
    tables = tables_of(run.point)
    assert tables is not None
    rng = Random(1)
    requests = [
        Request(i, 0.0, tables[0].draw(rng), tables[1].draw(rng)) for i in range(30_000)
    ]
    limits = EngineLimits(
        max_num_seqs=run.batch,
        max_num_batched_tokens=run.budget,
        kv_blocks=int(run.cache_tokens) // 32,
        block_size=32,
        max_model_len=4096,
    )
    tokens: list[tuple[float, int]] = []
    fleet = build_fleet(limits, law, engines=1, seed=1)
    for _ in serve(
        fleet,
        requests,
        on_step=lambda _, step: tokens.append((step.end_s, step.tokens)),
    ):
        pass
    # Neither the ramp nor the drain: requests are ten times the batch.
    end = tokens[-1][0]
    steady = [n for at, n in tokens if 0.2 * end < at < 0.8 * end]
    simulated = sum(steady) / (0.6 * end)
    assert tokens_per_s(run, law) == pytest.approx(simulated, rel=0.03)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_rate_and_tpot_are_each_others_inverse(
    whole: Fit, runs: list[Run], share: float
) -> None:
    """Rate and tpot are each others inverse."""
    run = _named(runs, "mlperf-5.1-0069-b200-8gpu-llama2-70b-server")
    law = Laws(whole.efficiencies).of(run)
    rate = share * rate_within(run, law, 10.0)
    tpot = tpot_at(run, law, rate)
    assert tpot is not None
    assert rate_within(run, law, tpot) == pytest.approx(rate, rel=1e-6)


def test_a_rate_beyond_the_engine_has_no_tpot(whole: Fit, runs: list[Run]) -> None:
    """A rate beyond the engine has no tpot."""
    run = _named(runs, "mlperf-5.1-0069-b200-8gpu-llama2-70b-server")
    law = Laws(whole.efficiencies).of(run)
    most = rate_within(run, law, 10.0)
    assert tpot_at(run, law, 1.01 * most) is None
    assert tpot_at(run, law, 0.99 * most) is not None


def test_the_gain_is_what_a_slower_step_does(whole: Fit, runs: list[Run]) -> None:
    """The gain is what a slower step does."""
    for name in (
        "mlperf-6.0-0017-gb300-8gpu-deepseek-r1-server",
        "mlperf-5.1-0069-b200-8gpu-llama2-70b-server",
    ):
        run = _named(runs, name)
        law = Laws(whole.efficiencies).of(run)
        judged, slower = judge(run, law), judge(run, law.slowed(1.001))
        moved = abs(slower.predicted / judged.predicted - 1) / 0.001
        assert judged.figure == slower.figure
        assert moved == pytest.approx(judged.gain, rel=0.02)


def test_each_run_is_judged_by_what_suits_it(whole: Fit, runs: list[Run]) -> None:
    """Each run is judged by what suits it."""
    laws = Laws(whole.efficiencies)
    figures = set()
    for run in runs:
        judged = judge(run, laws.of(run))
        figures.add(judged.figure)
        assert (judged.figure == THROUGHPUT) == run.throughput
        assert judged.figure != TPOT or judged.gain < STEEP
    assert figures == {THROUGHPUT, TPOT, RATE}


def test_time_to_first_token_is_close_to_what_was_published(
    whole: Fit, runs: list[Run]
) -> None:
    """Time to first token is close to what was published."""
    laws = Laws(whole.efficiencies)
    for name in (
        "mlperf-5.1-0070-gb200-4gpu-llama2-70b-interactive",
        "mlperf-6.0-0075-gb200-72gpu-gpt-oss-120b-server",
    ):
        run = _named(runs, name)
        simulated = simulate_ttft(run, laws.of(run))
        assert simulated is not None
        p50, p99 = simulated.errors
        assert abs(p50) < 0.25
        assert abs(p99) < 0.4


def test_time_to_first_token_is_not_judged_at_the_limit(
    whole: Fit, runs: list[Run]
) -> None:
    """Time to first token is not judged at the limit."""
    run = _named(runs, "mlperf-5.1-0069-b200-8gpu-llama2-70b-server")
    law = Laws(whole.efficiencies).of(run)
    assert "limit" in (unjudged(run, law) or "")
    assert simulate_ttft(run, law) is None


def _named(runs: list[Run], name: str) -> Run:
    return next(run for run in runs if run.point.id == name)
