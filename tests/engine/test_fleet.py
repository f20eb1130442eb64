"""A fleet routes like the real ones, and its engines draw dice of their own."""

from random import Random

import pytest

from loadstone.engine.core import Engine
from loadstone.engine.fleet import QUEUE_WEIGHT, Fleet, build_fleet
from loadstone.engine.sequence import Sequence
from loadstone.errors import UsageError
from loadstone.physics.limits import EngineLimits
from loadstone.physics.steplaw import StepLaw

LIMITS = EngineLimits(
    max_num_seqs=8, max_num_batched_tokens=64, kv_blocks=64, block_size=16,
    max_model_len=1024,
)  # fmt: skip
LAW = StepLaw(
    weights_ms=10.0, gemm_us_per_token=1.0, kv_ns_per_token=1.0, pair_ns=1.0, sigma=0.1
)


def fill(engine: Engine, *, running: int = 0, waiting: int = 0) -> None:
    """Give an engine a batch and a queue."""
    for i in range(running):
        engine.submit(Sequence(f"r{i}", 1, 100), 0.0)
    if running:
        engine.step()
    for i in range(waiting):
        engine.submit(Sequence(f"w{i}", 1, 100), 1.0)


def test_round_robin_takes_turns_from_the_first() -> None:
    """Whatever the load is."""
    fleet = build_fleet(LIMITS, LAW, engines=3, seed=0, router="round_robin")
    fill(fleet.engines[0], running=8, waiting=5)
    assert [fleet.route() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_least_loaded_takes_turns_among_equals() -> None:
    """An idle rack is filled evenly, not engine 0 alone."""
    fleet = build_fleet(LIMITS, LAW, engines=3, seed=0, router="least_loaded")
    assert [fleet.route() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("running", "chosen"), [(QUEUE_WEIGHT - 1, 1), (QUEUE_WEIGHT + 1, 0)]
)
def test_one_that_waits_weighs_four_that_run(running: int, chosen: int) -> None:
    """Engine 0 has a queue of one, engine 1 a batch just below or above its weight."""
    fleet = build_fleet(LIMITS, LAW, engines=2, seed=0, router="least_loaded")
    fill(fleet.engines[0], waiting=1)
    fill(fleet.engines[1], running=running)
    assert QUEUE_WEIGHT == 4
    assert [fleet.route() for _ in range(3)] == [chosen] * 3


def test_least_loaded_spreads_a_backlog_evenly() -> None:
    """Ninety requests over three engines are thirty each, though none has run."""
    fleet = build_fleet(LIMITS, LAW, engines=3, seed=0, router="least_loaded")
    for i in range(90):
        fleet.engines[fleet.route()].submit(Sequence(str(i), 1, 1), 0.0)
    assert [engine.waiting for engine in fleet.engines] == [30, 30, 30]
    assert fleet.waiting == 90
    assert repr(fleet) == "<Fleet of 3 running=0 waiting=90>"


def test_unknown_router_is_refused() -> None:
    """The hint lists those there are."""
    with pytest.raises(UsageError, match="no router 'random'") as caught:
        Fleet([], "random")
    assert caught.value.hint == "one of round_robin, least_loaded, prefix_affine"


def ends(seed: int, engines: int) -> list[list[float]]:
    """Return when the noisy steps of each engine end, for one request on each."""
    fleet = build_fleet(LIMITS, LAW, engines=engines, seed=seed)
    found = []
    for engine in fleet.engines:
        engine.submit(Sequence("a", 1, 5), 0.0)
        found.append([s.end_s for _ in range(6) if (s := engine.step())])
    return found


def test_each_engine_has_a_random_stream_of_its_own() -> None:
    """It depends on the seed and the engine's number, not on how many there are."""
    three = ends(1, 3)
    assert three == ends(1, 3)
    assert three[:2] == ends(1, 2)
    assert three[0] != three[1] != three[2] != three[0]
    assert ends(2, 3)[0] != three[0]


def test_engines_share_limits_and_law() -> None:
    """A fleet is of equals."""
    fleet = build_fleet(LIMITS, LAW, engines=4, seed=0)
    assert [(e.limits, e.law) for e in fleet.engines] == [(LIMITS, LAW)] * 4
    assert Random("0/engine/2").getstate() == fleet.engines[2]._rng.getstate()
