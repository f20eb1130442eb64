"""The emulated GPUs' sensors follow the engines, not the scrapers."""

from dataclasses import replace
from random import Random

import pytest

from loadstone.catalog.boards import load_board
from loadstone.catalog.presets import load_preset
from loadstone.catalog.workloads import load_lengths
from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence
from loadstone.physics.limits import EngineLimits
from loadstone.physics.power import PowerLaw
from loadstone.physics.steplaw import StepLaw
from loadstone.telemetry.gpus import GpuFacts, Gpus
from loadstone.telemetry.places import Topology
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
    rest_w_per_vm=2000.0,
    topology=Topology(gpus_per_engine=1, gpus_per_vm=4, vms_per_rack=18),
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


def samples(gpus: Gpus, now: float, spec: MetricSpec) -> dict[tuple[str, ...], float]:
    """Read a metric's samples, by their labels."""
    readings = {s.name: dict(found) for s, found in gpus.read(now)}
    return readings[spec.name]


def test_a_vm_draws_its_gpus_and_its_share_of_the_rest() -> None:
    """One of four GPUs busy a quarter of 2 s: 500 + 3 x 200 W, and 2000 W beside."""
    engines = [engine_of() for _ in range(4)]
    gpus = Gpus(FACTS, engines)
    engines[2].submit(Sequence("a", 16, 50), 1.0)
    run(engines[2], 2.0)
    vm = ("mock-rack-0", "mock-vm-0")
    expected = {(*vm, "gpus"): pytest.approx(1100.0), (*vm, "rest"): 2000.0}
    assert samples(gpus, 2.0, Server.POWER) == expected
    energy = samples(gpus, 2.0, Server.ENERGY)
    assert energy[*vm, "gpus"] == pytest.approx(2 * 1100.0)
    assert energy[*vm, "rest"] == pytest.approx(2 * 2000.0)


def test_engines_of_two_gpus_fill_vms_and_racks() -> None:
    """Two engines make a VM of four GPUs, three VMs a rack of this size."""
    topology = Topology(gpus_per_engine=2, gpus_per_vm=4, vms_per_rack=3)
    gpus = Gpus(replace(FACTS, topology=topology), [engine_of() for _ in range(8)])
    where = samples(gpus, 1.0, Server.ENGINE_GPUS)
    assert list(where)[:3] == [
        ("mock-rack-0", "mock-vm-0", "0", "0,1"),
        ("mock-rack-0", "mock-vm-0", "1", "2,3"),
        ("mock-rack-0", "mock-vm-1", "2", "0,1"),
    ]
    assert list(where)[-1] == ("mock-rack-1", "mock-vm-3", "7", "2,3")
    assert set(where.values()) == {2}
    of_gpus = samples(gpus, 1.0, Server.GPU_POWER)
    assert [labels[0] for labels in of_gpus] == ["0", "1", "2", "3"] * 4


def test_a_full_rack_draws_what_is_published_and_so_per_token() -> None:
    """Offline, one GPU's share: 1/72 of 136 kW, and some 0.1235 J per output token.

    That figure is 136 kW over the published 1,100,948 tokens/s. Here it is taken while
    the batch is full: no ramp, no drain.
    """
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    topology = replace(Topology.of(machine), gpus_per_vm=1, vms_per_rack=72)
    facts = GpuFacts.of(machine, load_board(machine.gpu))
    share = facts.rest_w_per_vm / facts.topology.gpus_per_vm
    engine = Engine(machine.limits, machine.law, Random(0))
    gpus = Gpus(replace(facts, topology=topology, rest_w_per_vm=share), [engine])
    inputs, outputs = (
        load_lengths(f"mlperf-llama2-70b-{way}") for way in ("input", "output")
    )
    rng = Random(0)
    for i in range(30_000):
        engine.submit(Sequence(str(i), inputs.draw(rng), outputs.draw(rng)), 0.0)
    # From when the batch has long been full to when the queue is empty.
    spent, tokens = [], []
    for left in (20_000, 0):
        while engine.waiting > left:
            step = engine.step()
        assert step is not None
        spent.append(joules(gpus, step.end_s))
        tokens.append(engine.generated_tokens)
        power = samples(gpus, step.end_s, Server.POWER)
        assert sum(power.values()) == pytest.approx(136_000 / 72)
    per_token = (spent[1] - spent[0]) / (tokens[1] - tokens[0])
    assert per_token == pytest.approx(0.1235, rel=0.02)  # it is 0.1244


def joules(gpus: Gpus, now: float) -> float:
    """Read the energy of all VMs, the rest of the rack included."""
    return sum(samples(gpus, now, Server.ENERGY).values())


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
