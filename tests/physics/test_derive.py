"""Laws derived from facts: what follows from them, by hand and in direction."""

from dataclasses import replace
from typing import Final

import pytest

from loadstone.errors import NotModelledError
from loadstone.physics.accelerator import Accelerator
from loadstone.physics.architecture import Architecture, Experts, Latent
from loadstone.physics.derive import Efficiencies, Layout, cache_precision, derive
from loadstone.physics.steplaw import StepLaw

GPU: Final = Accelerator(
    name="gpu",
    family="blackwell",
    fp4_dense_tflops=10_000,
    fp8_dense_tflops=5_000,
    bf16_dense_tflops=2_500,
    hbm_bytes=190e9,
    hbm_bytes_per_s=8e12,
    link_bytes_per_s=900e9,
    domain_gpus=72,
    power_limit_w=1_000,
)
DENSE: Final = Architecture(
    name="dense",
    params_total=70e9,
    params_active=70e9,
    n_layers=80,
    d_model=8192,
    n_heads=64,
    n_kv_heads=8,
    head_dim=128,
    vocab_size=32_000,
    max_context_tokens=4096,
)
EXPERTS: Final = replace(
    DENSE,
    name="experts",
    params_active=10e9,
    n_layers=10,
    experts=Experts(count=16, active=2, ffn_dim=4096),
)
PERFECT: Final = {
    "memory": 1.0, "cache": 1.0, "gemm.fp4": 1.0, "gemm.fp8": 1.0, "gemm.widened": 0.25,
    "gemm.experts": 1.0, "gemm.peak": 1.0, "gemm.width": 0.0, "knee": 0.3,
    "attention.decode": 1.0, "attention.prefill": 1.0, "activation": 30.0, "link": 1.0,
    "power": 0.5,
    "latency.eager": 30e-6, "latency.graph": 10e-6, "latency.exchange": 20e-6,
    "launch.eager": 100e-6, "launch.graph": 30e-6, "launch.quantise": 0.0,
    "launch.latent": 50e-6, "host.step": 1e-3, "host.ranks": 5e-3, "host.sequence": 0.0,
}  # fmt: skip
FP8: Final = Layout(precision="fp8", cache="fp8")


def law(
    model: Architecture = DENSE, layout: Layout = FP8, **constants: float
) -> StepLaw:
    """Derive a law with perfect efficiencies but for `constants`."""
    return derive(GPU, model, layout, Efficiencies(PERFECT | constants))


def test_a_perfect_engine_does_what_the_data_sheet_allows() -> None:
    """A perfect engine does what the data sheet allows."""
    perfect = law()
    assert perfect.weights_ms == pytest.approx(70e9 / 8e12 * 1e3)
    assert perfect.gemm_us_per_token == pytest.approx(2 * 70e9 / 5e15 * 1e6)
    # 2 x 80 layers x 8 heads x 128 values of one byte, read at 8 TB/s
    assert perfect.kv_ns_per_token == pytest.approx(163_840 / 8e12 * 1e9)
    assert perfect.pair_ns == pytest.approx(4 * 80 * 64 * 128 / 2.5e15 * 1e9)
    assert perfect.token_us == pytest.approx(80 * 8192 * 30 / 8e12 * 1e6)
    assert perfect.step_ms == pytest.approx(80 * 0.03 + 1)
    assert perfect.knee == pytest.approx(1.3)


def test_four_bits_halve_weights_and_gemms_and_little_else() -> None:
    """Four bits halve weights and gemms and little else."""
    fp8, fp4 = law(), law(layout=replace(FP8, precision="fp4"))
    assert fp4.weights_ms == pytest.approx(fp8.weights_ms * 9 / 16)
    assert fp4.gemm_us_per_token == pytest.approx(fp8.gemm_us_per_token / 2)
    assert fp4.kv_ns_per_token == fp8.kv_ns_per_token


def test_a_group_shares_the_work_and_pays_for_its_collectives() -> None:
    """A group shares the work and pays for its collectives."""
    one, four = law(), law(layout=replace(FP8, tensor_parallel=4))
    assert four.weights_ms == pytest.approx(one.weights_ms / 4)
    assert four.gemm_us_per_token == pytest.approx(one.gemm_us_per_token / 4)
    assert four.kv_ns_per_token == pytest.approx(one.kv_ns_per_token / 4)
    assert four.step_ms - one.step_ms == pytest.approx(2 * 80 * 10e-3)
    # norms stay whole; two all-reduces of a layer, 2 bytes of each activation
    local = 80 * 8192 * 30 * (0.5 + 0.5 / 4) / 8e12
    assert four.token_us == pytest.approx((local + 2 * 80 * 8192 * 2 / 900e9) * 1e6)


def test_a_step_reads_the_experts_that_it_touches() -> None:
    """A step reads the experts that it touches."""
    mixture = law(EXPERTS)
    routed = 10 * 3 * 8192 * 4096 * 16
    assert mixture.expert_weights_ms == pytest.approx(routed / 8e12 * 1e3)
    assert mixture.expert_miss == pytest.approx(1 - 2 / 16)
    one, many = mixture.seconds(1, 0, 0, 0), mixture.seconds(1000, 0, 0, 0)
    gemms = 999 * (mixture.gemm_us_per_token + mixture.token_us) * 1e-6
    # All experts instead of an eighth of them; the knee hides a part.
    assert 0 < many - one - gemms < mixture.expert_weights_ms * 1e-3 * 7 / 8


def test_with_attention_in_parallel_each_gpu_reads_all_dense_weights() -> None:
    """With attention in parallel each gpu reads all dense weights."""
    spread = replace(FP8, tensor_parallel=8, data_parallel_attention=True)
    whole, shared = law(EXPERTS, spread), law(EXPERTS, replace(FP8, tensor_parallel=8))
    assert whole.weights_ms == pytest.approx(8 * shared.weights_ms)
    assert whole.expert_weights_ms == pytest.approx(shared.expert_weights_ms)


def test_a_latent_cache_is_split_only_by_sequences() -> None:
    """A latent cache is split only by sequences."""
    latent = replace(EXPERTS, latent=Latent(kv_rank=512, rope_dim=64, q_rank=1536))
    group = replace(FP8, tensor_parallel=8)
    ranks = replace(group, data_parallel_attention=True)
    tensor, data = law(latent, group), law(latent, ranks)
    assert tensor.kv_ns_per_token > data.kv_ns_per_token
    assert data.kv_ns_per_token == pytest.approx(
        max(
            10 * 576 / 8 / 8e12 * 1e9,
            2 * 10 * 64 * (2 * 512 + 64) / 8 / 5e15 * 1e9,
        )
    )


def test_missing_tensor_cores_widen_the_weights() -> None:
    """Missing tensor cores widen the weights."""
    old = replace(GPU, fp4_dense_tflops=None, family="hopper")
    layout = replace(FP8, precision="fp4")
    widened = derive(old, DENSE, layout, Efficiencies(PERFECT))
    assert widened.gemm_us_per_token == pytest.approx(2 * 70e9 / (2.5e15 * 0.25) * 1e6)
    assert widened.weights_ms == pytest.approx(70e9 * 9 / 16 / 8e12 * 1e3)


def test_a_peak_that_equals_another_is_still_its_own() -> None:
    """FP8 on a chip whose BF16 is as fast is FP8, not a chip without it."""
    facts = {"gemm.peak": 0.8}
    twin = replace(GPU, bf16_dense_tflops=GPU.fp8_dense_tflops or 0.0)
    same = derive(twin, DENSE, FP8, Efficiencies(PERFECT | facts))
    assert same.gemm_us_per_token == law(**facts).gemm_us_per_token


def test_a_familys_factor_is_for_that_family_alone() -> None:
    """A familys factor is for that family alone."""
    slower = law(**{"memory@blackwell": 0.5, "memory@hopper": 0.1})
    assert slower.weights_ms == pytest.approx(2 * law().weights_ms)


def test_a_stacks_factor_is_on_every_cost() -> None:
    """A stacks factor is on every cost."""
    constants = Efficiencies(PERFECT | {"stack.old": 1.5})
    old = derive(GPU, EXPERTS, FP8, constants, stack="old")
    new = derive(GPU, EXPERTS, FP8, constants, stack="new")
    for load in ((1, 0, 100, 0), (500, 900, 1e5, 1e6)):
        assert old.seconds(*load) == pytest.approx(1.5 * new.seconds(*load))


def test_a_chips_own_factor_is_on_its_gemms() -> None:
    """A chips own factor is on its gemms."""
    fast = law(**{"silicon.gpu": 1.25})
    assert fast.gemm_us_per_token == pytest.approx(law().gemm_us_per_token / 1.25)
    assert fast.weights_ms == law().weights_ms


def test_the_boards_power_is_the_clock_of_tensor_cores_and_of_nothing_else() -> None:
    """At four times the watts and an exponent of a half GEMMs run twice as fast."""
    weak = replace(GPU, power_limit_w=GPU.power_limit_w / 4)
    slow, full = derive(weak, DENSE, FP8, Efficiencies(PERFECT)), law()
    assert slow.gemm_us_per_token == pytest.approx(2 * full.gemm_us_per_token)
    assert slow.pair_ns == pytest.approx(2 * full.pair_ns)
    for kept in ("weights_ms", "kv_ns_per_token", "token_us", "step_ms"):
        assert getattr(slow, kept) == getattr(full, kept)


def test_what_cannot_be_is_refused() -> None:
    """What cannot be is refused."""
    with pytest.raises(NotModelledError, match="no experts"):
        law(layout=replace(FP8, tensor_parallel=2, data_parallel_attention=True))
    with pytest.raises(NotModelledError, match="fp4"):
        law(layout=replace(FP8, cache="fp4"))


def test_checkpoints_of_mixtures_keep_some_weights_wide() -> None:
    """Checkpoints of mixtures keep some weights wide."""
    wide = replace(EXPERTS, dense_bits=8, expert_bits=4)
    assert wide.precisions("fp4") == ("fp4", "fp8")
    assert wide.precisions("fp8") == ("fp4", "fp8")
    assert wide.precisions("bf16") == ("fp4", "bf16")
    assert replace(DENSE, dense_bits=8).precisions("fp4") == ("fp4", "fp4")
    routed = wide.params_experts
    assert wide.weight_bytes("fp4") == pytest.approx(routed * 9 / 16 + 70e9 - routed)


def test_hopper_keeps_an_unusual_cache_wide() -> None:
    """Hopper keeps an unusual cache wide."""
    hopper = replace(GPU, family="hopper")
    sliding = replace(DENSE, sliding_layers=40, sliding_window=128)
    assert cache_precision(hopper, DENSE) == "fp8"
    assert cache_precision(hopper, sliding) == "bf16"
    assert cache_precision(GPU, sliding) == "fp8"
