"""Presets: from a name and a model to an engine, by rule and with every fact behind."""

from dataclasses import replace
from itertools import product
from statistics import fmean
from typing import Any

import pytest
from calibration_data import published

from loadstone.catalog.gpus import load_accelerator
from loadstone.catalog.laws import load_constants, load_law
from loadstone.catalog.models import load_architecture, model_name, model_names
from loadstone.catalog.placement import ROOMY, describe, place
from loadstone.catalog.points import load_points
from loadstone.catalog.presets import load_preset, preset_names, read_machine
from loadstone.catalog.tariffs import load_tariff, price_names, price_of_preset
from loadstone.errors import CatalogError, NotModelledError, UsageError
from loadstone.physics.derive import Layout, derive

PRESET, MODEL = "azure-nd-gb300-v6", "llama-2-70b"


def test_every_preset_loads_with_each_of_its_models() -> None:
    """And its price is in the catalog, for as many GPUs as it has."""
    for name in preset_names():
        price = price_of_preset(name)
        assert price is not None
        assert load_tariff(price).gpus == read_machine(name)[1]["gpus_per_vm"].value
    assert price_of_preset("a100") is None
    assert set(price_names()) >= {PRESET}


TOO_LARGE = "azure-nd-h100-v5", "deepseek-r1"
"""671 GB of weights, some of them in each GPU, and 640 GB of memory."""
SERVED = [pair for pair in product(preset_names(), model_names()) if pair != TOO_LARGE]


def test_model_that_fits_no_engine_of_a_machine_is_refused() -> None:
    """It says what it would take, and what there is."""
    with pytest.raises(UsageError, match=r"do not fit into 640\.0 GB"):
        load_preset(*TOO_LARGE)


@pytest.mark.parametrize(("name", "model"), SERVED)
def test_every_machine_serves_every_model_that_fits(name: str, model: str) -> None:
    """An engine that holds its longest request, within its memory."""
    machine = load_preset(name, model)
    gpus = machine.tensor_parallel
    assert machine.engines(vms=1) * gpus == machine.gpus_per_vm
    limits, memory = machine.limits, machine.memory
    assert limits.max_model_len <= limits.kv_blocks * limits.block_size <= memory.tokens
    used = memory.weight_bytes + memory.activation_bytes
    assert used + memory.tokens * memory.kv_bytes_per_token <= memory.hbm_bytes
    assert memory.hbm_bytes == gpus * load_accelerator(machine.gpu).hbm_bytes
    assert machine.basis in ("fitted", "transferred")
    assert f"law {machine.basis}" in next(machine.assumptions())
    one, many = (machine.law.seconds(b, 0, 1000 * b, 0) for b in (1, 256))
    assert 0.002 < one < many < 0.2


def test_rack_by_hand() -> None:
    """18 VMs of 4 GPUs, one engine each; KV for 1.47 million tokens in blocks of 32."""
    machine = load_preset(PRESET, MODEL)
    assert (machine.vms_per_rack, machine.gpus_per_vm, machine.engines(vms=1)) == (
        18,
        4,
        4,
    )
    law, limits = machine.law, machine.limits
    gpu, model = load_accelerator("gb300"), load_architecture(MODEL)
    constants = load_constants().efficiencies
    assert law == derive(
        gpu, model, machine.layout, constants, stack="trtllm-5.1", sigma=0.02
    )
    assert machine.layout == Layout(precision="fp4", cache="fp8", graphs=False)
    assert (limits.max_num_seqs, limits.max_num_batched_tokens) == (2048, 3584)
    assert (limits.block_size, limits.max_model_len) == (32, 32_768)
    tokens = 0.95 * (298_013_687_808 - 68.98e9 * 9 / 16 - 6_000_000_000) / 163_840
    assert limits.kv_blocks == int(tokens) // 32 == 45_881


def test_limits_can_be_replaced_within_reason() -> None:
    """None keeps one; what the engine could not serve under is refused."""
    machine = load_preset(PRESET, MODEL)
    assert machine.with_limits(max_num_seqs=None) == machine
    smaller = machine.with_limits(max_num_seqs=7, max_model_len=4096)
    assert (smaller.limits.max_num_seqs, smaller.limits.max_model_len) == (7, 4096)
    assert smaller.limits.max_num_batched_tokens == 3584
    assert smaller.law == machine.law
    with pytest.raises(UsageError, match="max_num_batched_tokens"):
        machine.with_limits(max_num_batched_tokens=2047)


def test_assumptions_are_the_assumed_and_the_uncertain() -> None:
    """Each with its value, those with a range with it; nothing that is known."""
    machine = load_preset(PRESET, MODEL)
    short = list(machine.assumptions(short=True))
    assert "sigma 0.02 (0.02 to 0.04)" in short
    assert "max_num_seqs 2048" in short
    assert machine.interval is not None
    assert 0.05 < machine.interval.value < 0.2
    assert short.pop(0) == (
        "fp4 TP1, KV cache fp8, no CUDA graphs, on gb300;"
        " law fitted on published points of this GPU and model,"
        f" within {machine.interval.value:.0%} (80 %)"
    )
    names = {text.split()[0] for text in short}
    assert names == {
        name
        for name, fact in machine.facts.items()
        if fact.confidence == "assumed" or fact.low is not None
    }
    assert not names & {"gpus_per_vm", "published_vm_min", "kv_ns_per_token"}
    long = list(machine.assumptions())[1:]
    assert [text.split()[0] for text in long] == [text.split()[0] for text in short]
    assert any(
        text.startswith("max_num_seqs 2048 sequence, assumed: settings of")
        for text in long
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("llama-3.1-405b", []),
        ("gpt-oss-120b", ["prompts seen 1.65 steps late"]),
        (
            "deepseek-r1",
            ["prompts seen 1.65 steps late and let in at one step of 10"],
        ),
    ],
)
def test_a_pipeline_is_an_assumption(model: str, said: list[str]) -> None:
    """TensorRT-LLM's own engine has none; data-parallel attention gathers."""
    machine = load_preset("azure-nd-gb300-v6", model)
    words = [text for text in machine.assumptions() if text.startswith("prompts")]
    assert words == said


def test_kv_capacity_is_that_of_the_reference() -> None:
    """1.46 million tokens with the 39.7 GB of a Llama-3 70B; ours is a Llama-2."""
    memory = replace(load_preset(PRESET, MODEL).memory, weight_bytes=39.7e9)
    assert memory.tokens == pytest.approx(1.46e6, rel=0.005)


def test_price_and_rack_run_are_as_published() -> None:
    """Price per VM-hour, and the spread over the 18 VMs of Azure's run."""
    for name, item, region in (
        (PRESET, "ND GB300 v6 pay-as-you-go", ""),
        ("azure-nd-gb200-v6", "ND GB200 v6 pay-as-you-go", "eastus, westus3"),
        ("azure-nd-h200-v5", "ND H200 v5 pay-as-you-go", "eastus"),
        ("azure-nd-h100-v5", "ND H100 v5 pay-as-you-go", "eastus"),
        ("azure-nd-mi300x-v5", "ND MI300X v5 pay-as-you-go", "eastus2, westus3"),
    ):
        price = load_tariff(name).facts["usd_per_vm_hour"]
        for row in published("prices.csv", item=item, region=region):
            assert price.value == float(row["price_usd"])
            assert price.confidence == row["confidence"]
            assert row["unit"] == "VM-hour"
            assert load_tariff(name).gpus == int(row["n_gpus"])
    value = {
        name: fact.value for name, fact in load_preset(PRESET, MODEL).facts.items()
    }
    for row in published("rack_vm_spread.csv"):
        assert value["published_vm_min"] == float(row["vm_min_tokens_per_s"])
        assert value["published_vm_max"] == float(row["vm_max_tokens_per_s"])
        assert value["vms_per_rack"] == int(row["n_vms"])
        assert value["published_vm_min"] < float(row["vm_mean_tokens_per_s"])
    assert 0 < value["published_vm_min"] < value["published_vm_max"]


# ------------------------------------------------------------------ layout by rule


def test_basis_says_whether_points_of_the_pair_were_fitted() -> None:
    """By architecture: Llama-3.1-70B is Llama-3.3-70B, of which there are points."""
    pairs = load_constants().pairs
    assert ("gb300", MODEL) in pairs
    assert ("gb300", "mixtral-8x7b") not in pairs
    assert load_preset(PRESET, MODEL).basis == "fitted"
    transferred = load_preset(PRESET, "mixtral-8x7b")
    assert transferred.basis == "transferred"
    known, less_known = load_preset(PRESET, MODEL).interval, transferred.interval
    assert known is not None
    assert less_known is not None
    assert known.value < less_known.value
    assert ("h200", "llama-3.1-70b") not in pairs
    assert ("h200", "llama-3.3-70b") in pairs
    assert load_preset("azure-nd-h200-v5", "llama-3.1-70b").basis == "fitted"


@pytest.mark.parametrize(
    ("name", "model", "layout"),
    [
        (PRESET, MODEL, "fp4 TP1, KV cache fp8, no CUDA graphs"),
        (PRESET, "llama-3.1-405b", "fp4 TP2, KV cache fp8, no CUDA graphs"),
        (PRESET, "deepseek-r1", "fp4 TP4 EP4, KV cache fp8"),
        (PRESET, "gpt-oss-120b", "fp4 TP1, KV cache fp8"),
        ("azure-nd-h200-v5", MODEL, "fp8 TP1, KV cache fp8"),
        ("azure-nd-h200-v5", "llama-3.3-70b", "fp8 TP2, KV cache fp8"),
        ("azure-nd-h200-v5", "deepseek-r1", "fp8 TP8 EP8, KV cache bf16"),
        ("azure-nd-h100-v5", "llama-3.3-70b", "fp8 TP2, KV cache fp8"),
    ],
)
def test_layouts_by_rule(name: str, model: str, layout: str) -> None:
    """Lowest precision of the chip; weights in half of the memory; experts spread."""
    assert describe(load_preset(name, model).layout) == layout


def test_rule_gives_most_published_groups() -> None:
    """Of 31 pairs of accelerator and model with stated settings, 25.

    A group that the rule gives is one that somebody published for the pair.
    """
    stated: dict[tuple[str, str, str], set[int]] = {}
    for point in load_points():
        for word in point.engine_settings.replace(",", " ").replace(";", " ").split():
            for kind in ("DEP", "TP"):
                size = word.removeprefix(kind)
                if size != word and size.isdecimal() and point.precision in BY_RULE:
                    key = point.accelerator, point.model, point.precision
                    stated.setdefault(key, set()).add(int(size))
    hits = {}
    for (accelerator, name, precision), sizes in stated.items():
        try:
            model = load_architecture(name)
        except CatalogError:
            continue
        gpu = load_accelerator(accelerator)
        layout = place(gpu, model, gpus_per_vm=8, graphs=True, precision=precision)
        hits[accelerator, model.name] = layout.tensor_parallel in sizes
    assert (sum(hits.values()), len(hits)) == (25, 31), hits


BY_RULE = ("fp4", "fp8")


def test_group_is_the_smallest_roomy_one() -> None:
    """Half of the group's memory is enough for the weights, half of that is not."""
    for name, model in product(preset_names(), model_names()):
        gpu, architecture = (
            load_accelerator(read_machine(name)[0]["gpu"]),
            load_architecture(model),
        )
        layout = place(gpu, architecture, gpus_per_vm=8, graphs=True)
        weights = architecture.weight_bytes(layout.precision)
        size = layout.tensor_parallel
        assert weights <= ROOMY * size * gpu.hbm_bytes or size == 8
        assert size == 1 or weights > ROOMY * size / 2 * gpu.hbm_bytes


def test_layout_may_be_asked_for() -> None:
    """TP2 leaves two engines to a VM; an engine may span VMs that are linked."""
    machine = load_preset(PRESET, MODEL, tensor_parallel=2, precision="fp8")
    assert (machine.tensor_parallel, machine.precision) == (2, "fp8")
    assert machine.engines(vms=1) == 2
    assert machine.memory.weight_bytes == pytest.approx(68.98e9)
    wide = load_preset(PRESET, "deepseek-r1", tensor_parallel=8)
    assert wide.expert_parallel == 8
    assert wide.engines(vms=2) == 1
    with pytest.raises(UsageError, match=r"1 VM of 4 GPUs cannot be .* 8 GPUs") as no:
        wide.engines(vms=1)
    assert "--vms 2" in no.value.hint
    with pytest.raises(UsageError, match="3 VM"):
        wide.engines(vms=3)
    split = load_preset(PRESET, "deepseek-r1", tensor_parallel=8, expert_parallel=1)
    assert not split.layout.data_parallel_attention
    # Data-parallel attention keeps the dense weights in each GPU, and one cache.
    assert split.memory.weight_bytes < wide.memory.weight_bytes
    assert split.memory.kv_bytes_per_token == 8 * wide.memory.kv_bytes_per_token
    assert wide.limits.max_num_seqs == 8 * split.limits.max_num_seqs


@pytest.mark.parametrize(
    ("name", "model", "asked", "why"),
    [
        ("azure-nd-h100-v5", MODEL, {"precision": "fp4"}, "h100 have no fp4"),
        ("azure-nd-mi300x-v5", MODEL, {"precision": "fp4"}, "mi300x have no fp4"),
        (PRESET, MODEL, {"precision": "int3"}, "no precision 'int3'"),
        (PRESET, MODEL, {"tensor_parallel": 3}, "of 3 is not modelled"),
        (PRESET, MODEL, {"tensor_parallel": 128}, "of 128 is not modelled"),
        ("azure-nd-h100-v5", MODEL, {"tensor_parallel": 16}, "of 16 is not modelled"),
        (PRESET, MODEL, {"expert_parallel": 2}, "has no experts"),
        (
            PRESET,
            "deepseek-r1",
            {"tensor_parallel": 8, "expert_parallel": 4},
            "expert parallelism of 4 in a group of 8",
        ),
    ],
)
def test_layouts_that_are_not_there_are_refused(
    name: str, model: str, asked: dict[str, Any], why: str
) -> None:
    """What the chip, its links or the model do not have, each with a way out."""
    with pytest.raises(NotModelledError, match=why):
        load_preset(name, model, **asked)


def test_weights_that_do_not_fit_are_refused() -> None:
    """405 GB are no load for one GPU of 80."""
    with pytest.raises(UsageError, match=r"405\.9 GB of weights do not fit") as refused:
        load_preset("azure-nd-h100-v5", "llama-3.1-405b", tensor_parallel=1)
    assert "--tensor-parallel-size" in refused.value.hint


def test_group_wider_than_the_kv_heads_keeps_copies() -> None:
    """Qwen3 has four KV heads: eight GPUs hold each token twice."""
    four, eight = (
        load_preset(
            "azure-nd-h200-v5",
            "qwen3-235b-a22b",
            tensor_parallel=n,
            expert_parallel=1,
        ).memory.kv_bytes_per_token
        for n in (4, 8)
    )
    assert eight == 2 * four


def test_sliding_windows_take_their_memory() -> None:
    """2.36 MB for each sequence of gpt-oss, beside the cache of its other layers."""
    memory = load_preset(PRESET, "gpt-oss-120b").memory
    fixed = memory.activation_bytes - 6e9
    assert fixed == 1024 * 18 * 128 * 2 * 8 * 64


def test_software_without_a_factor_is_refused() -> None:
    """A law is not guessed for a generation that nobody measured."""
    machine = load_preset(PRESET, MODEL)
    with pytest.raises(CatalogError, match="no serving software 'abacus'") as refused:
        load_law(
            load_accelerator("gb300"),
            load_architecture(MODEL),
            machine.layout,
            stack="abacus",
            sigma=machine.facts["sigma"],
        )
    assert "trtllm-5.1" in refused.value.hint


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("llama2-70b", MODEL),
        ("meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("META-LLAMA/llama-3.1-8b", "llama-3.1-8b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-r1"),
        ("Qwen/Qwen3-235B-A22B", "qwen3-235b-a22b"),
    ],
)
def test_models_go_by_the_names_that_users_type(typed: str, name: str) -> None:
    """Hugging Face ids, the published points' names, in any case."""
    assert model_name(typed) == name
    assert load_preset(PRESET, typed).model == name


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_slowdown_is_a_positive_number(factor: float) -> None:
    """Time that stands still, or runs backwards, is refused by name."""
    with pytest.raises(UsageError, match="slowdown must be a positive number"):
        load_preset(PRESET, MODEL).slowed(factor)


def test_slowed_machine_takes_so_much_longer() -> None:
    """Every step does, whatever is in it; nothing else changes."""
    machine = load_preset(PRESET, MODEL)
    slow = machine.slowed(10.0)
    for step in ((1, 0, 500, 0.0), (256, 1000, 90_000, 5e5)):
        assert slow.law.seconds(*step) == pytest.approx(10 * machine.law.seconds(*step))
    assert slow.limits == machine.limits


def test_vms_lie_apart_as_published_ones_do() -> None:
    """Eighteen of them: mean 1, slowest, median and fastest within half a per cent."""
    machine = load_preset(PRESET, MODEL)
    speeds = machine.speeds(18, seed=3)
    assert len(speeds) == 72
    assert all(len(set(speeds[4 * vm : 4 * vm + 4])) == 1 for vm in range(18))
    assert fmean(speeds) == pytest.approx(1.0)
    mean = machine.facts["published_vm_mean"].value
    for figure, name in (
        (min(speeds), "published_vm_min"),
        (max(speeds), "published_vm_max"),
    ):
        assert figure == pytest.approx(machine.facts[name].value / mean, rel=0.005)
    assert machine.speeds(18, seed=3) == speeds != machine.speeds(18, seed=4)
    assert machine.speeds(1, seed=3) == [1.0] * 4
    assert set(load_preset("azure-nd-h100-v5", MODEL).speeds(4, seed=3)) == {1.0}
