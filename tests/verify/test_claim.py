"""A claim against a run: how far, under which other conditions, and when not at all."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.catalog.claims import beside, claim_names, load_claim, read_claim, spread
from loadstone.catalog.points import load_points
from loadstone.errors import CatalogError, ExitCode, NotValidError, UsageError
from loadstone.verify.claim import Claim
from loadstone.verify.judgement import Judgement, judge_claim
from loadstone.verify.measured import MIN_BATCHES, Measured

RACK = load_claim("gb300-rack-1.1m")
VM = Measured(
    run="r1", output_tok_s=61_163.8, counted="sum", gpus=4, vms=1, accelerator="gb300",
    model="llama-2-70b", precision="fp4", loop="offline", input_tokens_mean=222.3,
    output_tokens_mean=273.0, ttft_p99_s=600.0, tpot_p99_s=0.12, batches=24.0,
    emulated=False, virtual=False, slowdown=1.0, verdict="ok", complete=True,
)  # fmt: skip
"""The mean VM of the published rack."""
OWN = """metric = "output_tok_s"
value = 5000
unit = "token/s"
model = "my-model"
scenario = "server"
gpus = 8
source = "a brochure"
date = "2026-11-01"
ttft_p99_ms = 500
"""


def condition(found: Judgement, name: str) -> Any:
    """Return a condition by its name."""
    (one,) = (d for d in found.differences if d.condition == name)
    return one


# ---------------------------------------------------------------------- what is shipped


def test_shipped_claims_say_what_was_published() -> None:
    """Figures, conditions and standing, each by hand from the publications."""
    assert (RACK.value, RACK.unit, RACK.gpus, RACK.vms) == (
        1_100_948,
        "token/s",
        72,
        18,
    )
    assert (RACK.model, RACK.precision, RACK.scenario) == (
        "llama-2-70b", "fp4", "offline",
    )  # fmt: skip
    assert RACK.standing() == "unverified, Offline, no latency limit"
    assert load_claim("gb300-gpu-15200").per_gpu == 15_200
    over = load_claim("gb300-over-gb200-27")
    assert over.per_gpu == pytest.approx(1.27 * 865_000 / 72, rel=1e-6)
    five = load_claim("gb300-over-h100-5x")
    assert five.per_gpu == pytest.approx(5 * 24_524.9 / 8, rel=1e-4)
    server = load_claim("mlperf-gb300-server")
    assert server.limits == pytest.approx({"ttft_p99_s": 2.0, "tpot_p99_s": 0.2})
    assert server.standing() == "verified by MLCommons, Server, under latency limits"
    interactive = load_claim("mlperf-b300-interactive")
    assert interactive.limits == pytest.approx({"ttft_p99_s": 0.45, "tpot_p99_s": 0.04})


def test_the_claims_agree_with_each_other() -> None:
    """The rack's figure makes the other three true: 15,291, 1.273, 4.99."""
    full = replace(VM, output_tok_s=1_100_948.3, gpus=72, vms=18)
    for name in claim_names():
        if name.startswith("gb300"):
            found = judge_claim(load_claim(name), full)
            assert found.share == pytest.approx(1.0, abs=0.007), name
            assert found.exit_code is ExitCode.DONE


def test_every_published_point_is_a_claim() -> None:
    """By its id; and what is neither a name nor an id is refused with the names."""
    for point in load_points():
        claim = load_claim(point.id)
        assert claim.value == point.tokens_per_s_system
        assert claim.per_gpu == pytest.approx(point.tokens_per_s_per_gpu, rel=0.01)
    with pytest.raises(CatalogError) as unknown:
        load_claim("two-million")
    assert "gb300-rack-1.1m" in unknown.value.hint


# ------------------------------------------------------------------------- how far


def test_one_vm_is_scaled_and_said_to_be() -> None:
    """61,163.8 tokens/s of 4 GPUs are 1,100,948 of 72; the spread of VMs is told."""
    found = judge_claim(RACK, VM, notes=list(spread(RACK, VM)))
    assert found.scaled == pytest.approx(1_100_948.4)
    assert found.share == pytest.approx(1.0, abs=1e-6)
    size = condition(found, "size")
    assert (size.same, size.measured) == (False, "4 GPUs (1 VM), scaled by 18")
    assert "unverified, Offline, no latency limit" in found.text()
    assert "-5.8 %" in found.notes[0]
    assert not list(spread(RACK, replace(VM, gpus=72, vms=18)))


@pytest.mark.parametrize(
    ("share", "code"),
    [(1.2, ExitCode.DONE), (0.95, ExitCode.DONE), (0.949, ExitCode.NOT_MET)],
)
def test_tolerance_has_two_sides(share: float, code: ExitCode) -> None:
    """5 % below still reproduces it, and 5.1 % does not."""
    found = judge_claim(RACK, replace(VM, output_tok_s=share * RACK.per_gpu * 4 + 1e-6))
    assert found.exit_code is code
    assert found.text().startswith(
        f"{'reproduced' if code is ExitCode.DONE else 'not reproduced:'} {share:.1%}"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"batches": MIN_BATCHES - 0.1}, "ramp and drain"),
        ({"verdict": "client_limited"}, "client_limited"),
        ({"complete": False}, "stopped early"),
        ({"output_tok_s": 0.0}, "no output token"),
    ],
)
def test_run_that_is_not_valid_proves_nothing(
    changes: dict[str, Any], why: str
) -> None:
    """Neither for a claim nor against it, however fast it was."""
    found = judge_claim(RACK, replace(VM, **changes))
    assert found.exit_code is ExitCode.NOT_VALID
    assert why in found.not_valid[0]
    assert found.text().startswith("not valid: ")


def test_exactly_enough_batches_are_enough() -> None:
    """The other side of the limit; a live run has none to count."""
    for batches in (float(MIN_BATCHES), None):
        found = judge_claim(RACK, replace(VM, batches=batches))
        assert found.exit_code is ExitCode.DONE


def test_latency_limits_are_part_of_the_claim() -> None:
    """Fast enough and too late is not reproduced; unknown is not kept."""
    server = load_claim("mlperf-gb300-server")
    fast = replace(
        VM, output_tok_s=4 * 12_100.0, loop="open", batches=None, ttft_p99_s=1.9,
        tpot_p99_s=0.15,
    )  # fmt: skip
    assert judge_claim(server, fast).exit_code is ExitCode.DONE
    for broken in ({"ttft_p99_s": 2.1}, {"tpot_p99_s": None}):
        found = judge_claim(server, replace(fast, **broken))
        assert found.exit_code is ExitCode.NOT_MET
        assert len(found.broken_limits) == 1
        assert condition(found, "latency limit").same is False


def test_every_other_condition_is_named() -> None:
    """Each of them, one at a time, is the one that differs."""
    same = replace(
        RACK, output_tokens_mean=273.0, precision="fp4", gpus=4, value=61_163.8, vms=1
    )
    assert judge_claim(same, VM).text().endswith("under the same conditions")
    for changes, name in (
        ({"model": "llama-3.1-8b"}, "model"),
        ({"precision": "fp8"}, "precision"),
        ({"accelerator": "h100"}, "accelerator"),
        ({"loop": "open"}, "scenario"),
        ({"input_tokens_mean": 230.0}, "input tokens"),
        ({"output_tokens_mean": 100.0}, "output tokens"),
        ({"gpus": 8.0}, "size"),
        ({"emulated": True}, "machine"),
        ({"virtual": True}, "clock"),
        ({"slowdown": 10.0}, "clock"),
    ):
        found = judge_claim(same, replace(VM, **changes))
        assert [d.condition for d in found.differences if not d.same] == [name]
        assert f"{name}: " in found.text()
    unknown = judge_claim(same, replace(VM, precision=""))
    assert condition(unknown, "precision").same is None


def test_comparison_with_a_run_of_ours() -> None:
    """Two runs are compared per GPU, and the baseline must be valid too."""
    claim = load_claim("gb300-over-h100-5x")
    base = replace(VM, run="r2", output_tok_s=8 * 3_000.0, gpus=8, accelerator="h100")
    found = judge_claim(claim, VM, baseline=base)
    assert found.scaled == pytest.approx(61_163.8 / 4 / 3_000)
    assert condition(found, "baseline").same is False
    bad = judge_claim(claim, VM, baseline=replace(base, verdict="too_few_samples"))
    assert bad.exit_code is ExitCode.NOT_VALID
    with pytest.raises(ValueError, match="compares with nothing"):
        judge_claim(RACK, VM, baseline=base)


def test_baseline_without_a_token_is_not_valid() -> None:
    """It is told, and nothing is divided by nothing."""
    claim = load_claim("gb300-over-h100-5x")
    with pytest.raises(NotValidError, match="r1"):
        judge_claim(claim, VM, baseline=replace(VM, output_tok_s=0.0))


def test_server_and_interactive_stand_beside() -> None:
    """Of the same accelerator where there is one, else of its family."""
    found = {one.scenario: one for one in beside(RACK)}
    assert found["server"].output_tok_s_per_gpu == pytest.approx(12_059.42)
    assert found["server"].accelerator == "gb300"
    assert found["interactive"].accelerator == "b300"
    assert found["interactive"].verified
    assert "ttft_p99 450 ms" in found["interactive"].limits


@given(st.floats(1, 1e7), st.floats(0.5, 100), st.integers(1, 1000))
def test_share_does_not_depend_on_the_number_of_gpus(
    rate: float, factor: float, gpus: int
) -> None:
    """As many times the GPUs with as many times the tokens are the same share."""
    one = judge_claim(RACK, replace(VM, output_tok_s=rate, gpus=gpus))
    many = judge_claim(
        RACK, replace(VM, output_tok_s=rate * factor, gpus=gpus * factor)
    )
    assert many.share == pytest.approx(one.share)


# ------------------------------------------------------------------------ a user's own


def test_own_claim() -> None:
    """Limits in milliseconds, unverified unless it says so."""
    claim = read_claim(OWN, "claim.toml")
    assert claim == Claim(
        name="claim.toml", title="claim.toml", metric="output_tok_s", value=5000,
        unit="token/s", model="my-model", scenario="server", gpus=8,
        source="a brochure", date="2026-11-01", limits={"ttft_p99_s": 0.5},
        verified=False,
    )  # fmt: skip
    ratio = OWN.replace("output_tok_s", "times_baseline_per_gpu").replace(
        '"token/s"', '"1"'
    )
    own = read_claim(ratio + "baseline_tok_s_per_gpu = 100\n", "claim.toml")
    assert own.per_gpu == 500_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OWN + "speed = 1\n", "line 10: speed is unknown"),
        (OWN.replace("5000", "-1"), "line 2: value -1 is not positive"),
        (OWN.replace("5000", '"fast"'), "line 2: value cannot be 'fast'"),
        (
            OWN.replace('"token/s"', '"token/h"'),
            "line 3: unit 'token/h' is not",
        ),
        (OWN.replace('"server"', '"batch"'), "line 5: scenario 'batch'"),
        (OWN.replace("gpus = 8", "gpus = 0"), "line 6: gpus 0 is less"),
        (OWN.replace("gpus = 8\n", ""), "no gpus"),
        (OWN + "baseline_tok_s_per_gpu = 3\n", "line 1: metric is a multiple"),
        ("value = ", "claim.toml is not TOML"),
    ],
)
def test_wrong_claims_are_refused_with_their_line(text: str, said: str) -> None:
    """File, line and key."""
    with pytest.raises(UsageError) as wrong:
        read_claim(text, "claim.toml")
    assert said in wrong.value.message
