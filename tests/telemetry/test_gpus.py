"""The emulated GPUs' sensors follow the engines, not the scrapers."""

from random import Random

import pytest

from loadstone.catalog.boards import load_board
from loadstone.catalog.presets import load_preset
from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence
from loadstone.physics.limits import EngineLimits
from loadstone.physics.power import PowerLaw
from loadstone.physics.steplaw import StepLaw
from loadstone.telemetry.gpus import GpuFacts, Gpus
from loadstone.vocabulary import MetricSpec, Server

MIB = 1 << 20
LIMITS = EngineLimits(
    max_num_seqs=8,
    max_num_batched_tokens=64,
    kv_blocks=100,
    block_size=16,
    max_model_len=1000,
)
LAW = StepLaw(weights_ms=10.0, gemm_us_per_token=0.0, kv_ns_per_token=0.0, pair_ns=0.0)
FACTS = GpuFacts(
    title="NVIDIA GB300 (emulated)",
    power=PowerLaw(idle_w=200.0, limit_w=1400.0),
    gpus_per_vm=4,
    gpus_per_engine=1,
    memory_bytes=1000.0 * MIB,
    memory_bytes_per_s=1e6,
    weight_bytes=2_000.0,
    reserved_bytes=100.0 * MIB,
    kv_bytes_per_token=10.0,
)


def engine_of(law: StepLaw = LAW) -> Engine:
    """Make an engine whose steps take as long as the law says."""
    return Engine(LIMITS, law, Random(0))


def run(engine: Engine, until: float) -> None:
    """Complete the steps that end by `until`."""
    while engine.due is not None and engine.due <= until + 1e-9:
        engine.step()


def value(gpus: Gpus, now: float, spec: MetricSpec) -> float:
    """Read one sensor of the first GPU."""
    readings = {s.name: list(samples) for s, samples in gpus.read(now)}
    found = readings[spec.name][0][1]
    assert isinstance(found, float)
    return found


def test_power_and_energy_by_hand() -> None:
    """50 steps of 10 ms in 2 s: a quarter busy, 500 W, 1000 J."""
    engine = engine_of()
    gpus = Gpus(FACTS, [engine])
    engine.submit(Sequence("a", 16, 50), 1.0)
    run(engine, 2.0)
    assert engine.steps == 50
    assert value(gpus, 2.0, Server.GPU_UTIL) == pytest.approx(25.0)
    assert value(gpus, 2.0, Server.GPU_ENGINE_ACTIVE) == pytest.approx(0.25)
    assert value(gpus, 2.0, Server.GPU_POWER) == pytest.approx(500.0)
    assert value(gpus, 2.0, Server.GPU_ENERGY) == pytest.approx(1000.0 * 1e3)


def test_a_step_that_runs_counts_as_far_as_it_got() -> None:
    """Half-way through the first step 5 ms are busy; after its end no more than it."""
    engine = engine_of()
    engine.submit(Sequence("a", 16, 50), 1.0)
    engine.step()
    assert engine.due == pytest.approx(1.01)
    for now, busy in ((0.5, 0.0), (1.0, 0.0), (1.005, 0.005), (1.01, 0.01), (9, 0.01)):
        assert engine.busy_s(now) == pytest.approx(busy)
    gpus = Gpus(FACTS, [engine])
    expected = 200.0 * 1.005 + 1200.0 * 0.005
    assert value(gpus, 1.005, Server.GPU_ENERGY) == pytest.approx(expected * 1e3)


def test_energy_does_not_depend_on_who_looks_when() -> None:
    """One scraper looks a thousand times, the other once; it never falls."""
    curious, calm = engine_of(), engine_of()
    often, once = Gpus(FACTS, [curious]), Gpus(FACTS, [calm])
    for engine in (curious, calm):
        engine.submit(Sequence("a", 16, 40), 0.1)
        engine.submit(Sequence("b", 16, 90), 0.77)
    before = 0.0
    rng = Random(1)
    now = 0.0
    for _ in range(1000):
        now += rng.random() * 0.005
        run(curious, now)
        energy = value(often, now, Server.GPU_ENERGY)
        assert energy >= before
        before = energy
    run(calm, now)
    assert value(once, now, Server.GPU_ENERGY) == pytest.approx(before)


def test_shares_are_of_the_time_since_the_last_look() -> None:
    """But of a second at least: who looks again at once sees the same."""
    engine = engine_of()
    gpus = Gpus(FACTS, [engine])
    engine.submit(Sequence("a", 16, 100), 0.0)
    run(engine, 2.0)
    # Not yet a whole window: what there is since the start.
    assert value(gpus, 0.5, Server.GPU_ENGINE_ACTIVE) == pytest.approx(1.0)
    assert value(gpus, 2.0, Server.GPU_ENGINE_ACTIVE) == pytest.approx(0.5)
    assert value(gpus, 2.2, Server.GPU_ENGINE_ACTIVE) == pytest.approx(0.5)
    assert value(gpus, 3.0, Server.GPU_ENGINE_ACTIVE) == pytest.approx(0.0)
    assert value(gpus, 3.0, Server.GPU_POWER) == pytest.approx(200.0)


def test_tensor_and_memory_shares_by_hand() -> None:
    """16 prompt tokens and 49 decoded in 1 s, 1 ms of GEMM each; bytes at 1 MB/s."""
    law = StepLaw(
        weights_ms=1.0, gemm_us_per_token=1000.0, kv_ns_per_token=0.0, pair_ns=0.0
    )
    engine = engine_of(law)
    gpus = Gpus(FACTS, [engine])
    engine.submit(Sequence("a", 16, 50), 0.0)
    run(engine, 1.0)
    assert engine.computed_tokens == 16 + 49
    assert value(gpus, 1.0, Server.GPU_TENSOR_ACTIVE) == pytest.approx(0.065)
    # By the k-th decode step the context is the prompt and k tokens.
    context = sum(16 + k for k in range(1, 50))
    assert engine.context_read == context
    expected = (2000 * 50 + 10 * context) / 1e6
    assert value(gpus, 1.0, Server.GPU_DRAM_ACTIVE) == pytest.approx(expected)


def test_memory_by_hand() -> None:
    """Weights, what is reserved and the whole KV pool are taken from the start."""
    gpus = Gpus(FACTS, [engine_of()])
    used = (2_000.0 + 1600 * 10.0) / MIB + 100.0
    assert value(gpus, 0.0, Server.GPU_MEMORY_USED) == pytest.approx(used)
    assert value(gpus, 0.0, Server.GPU_MEMORY_FREE) == pytest.approx(1000.0 - used)


def test_labels_say_which_gpu_of_which_vm() -> None:
    """Two VMs of four; every UUID is its own, and nothing looks real."""
    gpus = Gpus(FACTS, [engine_of() for _ in range(8)])
    spec, samples = next(iter(gpus.read(1.0)))
    rows = [dict(zip(spec.labels, labels, strict=True)) for labels, _ in samples]
    assert [row["gpu"] for row in rows] == ["0", "1", "2", "3"] * 2
    assert [row["device"] for row in rows[:2]] == ["nvidia0", "nvidia1"]
    assert [row["Hostname"] for row in rows] == ["mock-vm-0"] * 4 + ["mock-vm-1"] * 4
    assert len({row["UUID"] for row in rows}) == 8
    assert {row["modelName"] for row in rows} == {"NVIDIA GB300 (emulated)"}


def test_the_catalogs_machine_has_sensors() -> None:
    """1400 W at the limit, 8 TB/s, and more memory than the engine takes."""
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    board = load_board(machine.gpu)
    facts = GpuFacts.of(machine, board)
    assert facts.title == "NVIDIA GB300 (emulated)"
    assert facts.power == PowerLaw(idle_w=200.0, limit_w=1400.0)
    assert board.facts["power_idle_w"].confidence == "assumed"
    assert facts.memory_bytes_per_s == 8e12
    engine = Engine(machine.limits, machine.law, Random(0))
    gpus = Gpus(facts, [engine])
    free = value(gpus, 1.0, Server.GPU_MEMORY_FREE)
    assert free > 0
    total = free + value(gpus, 1.0, Server.GPU_MEMORY_USED)
    assert total == pytest.approx(284_208)
