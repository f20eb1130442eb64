"""Options of the engines: what they build, and what cannot be is refused."""

from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest

from loadstone.cli.engine_options import build, build_live, transfer_of
from loadstone.engine.disaggregated import Disaggregated
from loadstone.engine.fleet import Fleet, build_fleet
from loadstone.engine.virtual import serve
from loadstone.errors import NotModelledError, UsageError
from loadstone.physics.speculation import PLAIN, Speculation
from loadstone.traffic.request import Request

GIVEN: dict[str, Any] = {
    "preset": "azure-nd-gb300-v6", "model": "llama-2-70b", "vms": None, "racks": None,
    "router": "least_loaded", "policy": "vllm", "seed": 0, "max_num_seqs": None,
    "max_num_batched_tokens": None, "max_model_len": None,
    "num_speculative_tokens": None, "speculative_acceptance": None,
    "prefill_gpus": None, "decode_gpus": None,
}  # fmt: skip
POOLS = {"prefill_gpus": 28, "decode_gpus": 44}
DRAFTS = {"num_speculative_tokens": 1, "speculative_acceptance": 1.7}
ROOM = {"max_num_seqs": 512}


@pytest.mark.parametrize(
    ("size", "vms", "engines"),
    [
        ({}, 1, 4),
        ({"vms": 18}, 18, 72),
        ({"racks": 1}, 18, 72),
        ({"racks": 3}, 54, 216),
        (POOLS, 18, 72),
        (POOLS | {"vms": 18}, 18, 72),
        (POOLS | {"racks": 1}, 18, 72),
        ({"prefill_gpus": 1, "decode_gpus": 3}, 1, 4),
    ],
)
def test_size_in_vms_racks_or_gpus(
    size: dict[str, int], vms: int, engines: int
) -> None:
    """Four GPUs to a VM and an engine to a GPU, eighteen VMs to a rack."""
    built = build(**GIVEN | size)
    assert (built.vms, len(built.cluster.engines)) == (vms, engines)
    pooled = isinstance(built.cluster, Disaggregated)
    assert pooled is ("prefill_gpus" in size)


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ({"vms": 1, "racks": 1}, "how large it is once"),
        ({"prefill_gpus": 4}, "belong together"),
        ({"decode_gpus": 4}, "belong together"),
        ({"prefill_gpus": 2, "decode_gpus": 3}, r"2 \+ 3 GPUs are not whole VMs of 4"),
        (POOLS | {"vms": 17}, "are not 17 VMs of 4"),
        (
            {"prefill_gpus": 1, "decode_gpus": 3, "tensor_parallel_size": 2},
            "1 GPU that prefills .* engines of 2 GPUs",
        ),
        (
            {"prefill_gpus": 2, "decode_gpus": 6, "tensor_parallel_size": 4},
            "2 GPUs that prefill .* engines of 4 GPUs",
        ),
        (
            {"prefill_gpus": 4, "decode_gpus": 4, "vms": 2}
            | DRAFTS
            | {"tensor_parallel_size": 8},
            "4 GPUs that prefill .* engines of 8 GPUs",
        ),
        ({"num_speculative_tokens": 2}, "belong together"),
        ({"speculative_acceptance": 1.5}, "belong together"),
        (
            DRAFTS | {"speculative_acceptance": 2.1},
            "an acceptance length of 2.1 with 1",
        ),
        (DRAFTS | {"speculative_acceptance": 0.9}, "an acceptance length of 0.9"),
        (DRAFTS, "2048 sequences verify 2 tokens each"),
    ],
)
def test_what_cannot_be_is_refused(size: dict[str, Any], why: str) -> None:
    """With the numbers."""
    with pytest.raises(UsageError, match=why):
        build(**GIVEN | size)


def test_pools_by_hand() -> None:
    """28 prefill and 44 decode; a token's KV takes 0.18 us over NVLink."""
    cluster = build(**GIVEN | POOLS | DRAFTS | ROOM).cluster
    assert isinstance(cluster, Disaggregated)
    pools = cluster.prefill.engines, cluster.decode.engines
    assert [len(part) for part in (*pools, cluster.links)] == [28, 44, 28]
    transfer = transfer_of(build(**GIVEN).machine)
    assert transfer.seconds(1000) == pytest.approx(0.182e-3, rel=0.01)


def test_engines_look_at_prompts_as_late_as_validated_ones() -> None:
    """Built for `simulate` or `serve`: first tokens 1.65 steps later, TPOT the same."""
    options = {"preset": "azure-nd-gb300-v6", "policy": "trtllm_max_util",
               "model": "gpt-oss-120b", "vms": 1, "router": "least_loaded", "seed": 1,
               "prefix_caching": False}  # fmt: skip
    machine, fleet, _ = build_live(**options)
    engines = len(fleet.engines)
    law = replace(machine.law, sigma=0.0)
    arrivals = [Request(i, 0.01 * i, 500, 200) for i in range(600)]
    direct = build_fleet(
        machine.limits, law, engines=engines, seed=1, router="least_loaded",
        policy="trtllm_max_util", prefix_caching=False,
    )  # fmt: skip
    late, soon = (list(serve(each, arrivals)) for each in (fleet, direct))
    ttft = [
        fmean((each.sequence.first_s or 0.0) - each.request.intended_s for each in run)
        for run in (late, soon)
    ]
    tpot = [
        fmean((s.last_s or 0.0) - (s.first_s or 0.0) for _, s, _, _ in run) / 199
        for run in (late, soon)
    ]
    assert tpot[0] == pytest.approx(tpot[1], rel=0.02)
    assert (ttft[0] - ttft[1]) / tpot[1] == pytest.approx(1.65, abs=0.35)


def test_live_server_has_fleets_only() -> None:
    """Speculation too; pools are refused with the way out."""
    _, fleet, vms = build_live(**GIVEN | DRAFTS | ROOM)
    assert isinstance(fleet, Fleet)
    assert vms == 1
    for engine in fleet.engines:
        assert engine._decoding.speculation == Speculation(1.7, 1)
    for engine in build_live(**GIVEN)[1].engines:
        assert engine._decoding.speculation == PLAIN
    with pytest.raises(NotModelledError, match="not modelled by the live server yet"):
        build_live(**GIVEN | POOLS)
