"""`loadstone verify`: runs against claims and contracts, with their exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadstone.cli.main import main

CLAIM = "gb300-rack-1.1m"
Verify = Callable[..., tuple[int, str, str]]
CONTRACT = """[[clause]]
metric = "e2e_s"
stat = "p50"
max = {limit}

[[clause]]
metric = "output_tok_s"
min = 100

[[clause]]
metric = "usd_per_million_output_tokens"
max = 100
"""


def simulated(out: Path, *args: str) -> Path:
    """Simulate and return the folder."""
    with pytest.raises(SystemExit):
        main(["simulate", *args, "--out", str(out), "--json"])
    return (out / "latest").resolve()


@pytest.fixture(scope="module")
def one_vm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulate one VM offline for 20 times its batch: some seven seconds of CPU."""
    out = tmp_path_factory.mktemp("vm")
    return simulated(out, "--vms", "1", "--offline", "164000", "--no-rows")


@pytest.fixture(scope="module")
def short_rack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulate a rack of 18 VMs offline, with 100 requests for each."""
    out = tmp_path_factory.mktemp("rack")
    return simulated(out, "--vms", "18", "--offline", "1800")


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    """Return a function that runs the verb."""

    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["verify", *map(str, args)])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


def document(verify: Verify, *args: object, code: int) -> dict[str, Any]:
    """Run the verb and return its JSON."""
    left, out, err = verify(*args, "--json")
    assert left == code, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_one_vm_reproduces_the_rack_and_says_it_was_scaled(
    verify: Verify, one_vm: Path
) -> None:
    """Unverified, Offline, no latency limit; Server and Interactive stand beside."""
    found = document(verify, CLAIM, one_vm, code=0)
    assert found["outcome"] == "reproduced"
    assert found["share"] == pytest.approx(1.0, abs=0.05)
    assert found["scaled"] == pytest.approx(1_100_948, rel=0.05)
    assert found["text"].startswith("reproduced 9")
    assert "(unverified, Offline, no latency limit)" in found["text"]
    assert "4 GPUs (1 VM), scaled by 18" in found["text"]
    assert "emulated" in found["text"]
    assert "virtual time" in found["text"]
    same = {d["condition"]: d["same"] for d in found["differences"]}
    for name in ("model", "precision", "accelerator", "scenario", "input tokens"):
        assert same[name] is True, name
    assert [b["scenario"] for b in found["beside"]] == ["server", "interactive"]
    assert "18 VMs of the published rack" in found["notes"][0]


def test_table_of_the_same(verify: Verify, one_vm: Path) -> None:
    """What people read has all of it."""
    code, out, _ = verify(CLAIM, one_vm)
    flat = " ".join(out.split())
    assert code == 0
    for part in (
        "1,100,948 token/s: unverified, Offline, no latency limit",
        "published Server, gb300", "12,059.4", "published Interactive, b300",
        "by multiplication", "scaled by 18", "reproduced 9",
    ):  # fmt: skip
        assert part in flat


def test_short_rack_is_not_valid(verify: Verify, short_rack: Path) -> None:
    """18 VMs with a twentieth of a batch each prove nothing, and say why."""
    found = document(verify, CLAIM, short_rack, code=4)
    assert found["measured"]["gpus"] == 72
    assert found["measured"]["batches"] == pytest.approx(1800 / (72 * 2048))
    assert "ramp and drain" in found["not_valid"][0]
    size = next(d for d in found["differences"] if d["condition"] == "size")
    assert size["same"] is True


def test_claim_that_is_not_met(verify: Verify, one_vm: Path, tmp_path: Path) -> None:
    """A claim of twice as much, in a file of the user's."""
    claim = tmp_path / "claim.toml"
    claim.write_text(
        'metric = "output_tok_s_per_gpu"\nvalue = 30000\nunit = "token/s/GPU"\n'
        'model = "llama2-70b"\nscenario = "offline"\ngpus = 72\n'
        'source = "a brochure"\ndate = "2026-11-01"\n'
    )
    found = document(verify, claim, one_vm, code=3)
    assert found["share"] == pytest.approx(0.5, abs=0.03)
    assert found["text"].startswith("not reproduced: ")
    broken = document(verify, "mlperf-gb300-server", one_vm, code=3)
    assert broken["share"] > 1
    assert "ttft_p99" in broken["broken_limits"][0]


def test_comparisons(verify: Verify, one_vm: Path, short_rack: Path) -> None:
    """With the published baseline, and with a run: then both must be valid."""
    for name, value in (("gb300-over-gb200-27", 1.27), ("gb300-over-h100-5x", 5)):
        found = document(verify, name, one_vm, code=0)
        assert found["scaled"] == pytest.approx(value, rel=0.05)
    against = document(verify, "gb300-over-gb200-27", one_vm, one_vm, code=3)
    assert against["scaled"] == pytest.approx(1.0)
    late = document(verify, "gb300-over-gb200-27", one_vm, short_rack, code=4)
    assert late["not_valid"][0].startswith("the baseline: ")


def test_list(verify: Verify) -> None:
    """Every shipped claim with its standing."""
    code, out, _ = verify("--list", "--json")
    listed = {claim["name"]: claim for claim in json.loads(out)}
    assert code == 0
    assert listed[CLAIM]["standing"] == "unverified, Offline, no latency limit"
    assert len(listed) == 8
    assert CLAIM in verify("--list")[1]


def test_contract(verify: Verify, short_rack: Path, tmp_path: Path) -> None:
    """Clause by clause, both ways."""
    path = tmp_path / "contract.toml"
    for limit, code, word, said in (
        (1e6, 0, "pass", "all passed"),
        (1e-3, 3, "fail", "broken"),
    ):
        path.write_text(CONTRACT.format(limit=limit))
        found = document(verify, "--contract", path, short_rack, code=code)
        assert [c["status"] for c in found["clauses"]] == [word, "pass", "pass"]
        left, out, _ = verify("--contract", path, short_rack)
        assert (left, said in out) == (code, True)


def test_contract_on_too_few(verify: Verify, tmp_path: Path) -> None:
    """Fifty answers are enough for a median and for nothing else."""
    folder = simulated(tmp_path, "--vms", "1", "--offline", "50")
    verify("--list")  # takes what the simulation printed
    path = tmp_path / "contract.toml"
    path.write_text(CONTRACT.format(limit=1e6).replace("p50", "p99"))
    found = document(verify, "--contract", path, folder, code=4)
    assert {c["status"] for c in found["clauses"]} == {"not enough samples"}
    assert "cannot be told" in verify("--contract", path, folder)[1]


def test_wrong_usage(verify: Verify, one_vm: Path, tmp_path: Path) -> None:
    """Each is told; wrong files with their line."""
    contract = tmp_path / "contract.toml"
    contract.write_text('[[clause]]\nmetric = "req_s"\nmin = 1\nmax = "x"\n')
    claim = tmp_path / "claim.toml"
    claim.write_text("speed = 3\n")
    for args, said in (
        ((CLAIM,), "give a claim and the folder"),
        ((CLAIM, tmp_path), "not a run folder"),
        ((CLAIM, one_vm, one_vm), "compares with nothing"),
        (("1.1m", one_vm), "no claim '1.1m'"),
        ((claim, one_vm), "line 1: speed is unknown"),
        (("--contract", contract, one_vm), "line 2: req_s needs either max or min"),
        (("--contract", contract), "takes one DIR"),
        (("--contract", tmp_path / "gone.toml", one_vm), "cannot read"),
    ):
        code, _, err = verify(*args)
        assert (code, said in err) == (2, True), (args, err)


def test_run_that_was_ended_by_force_is_not_valid(
    verify: Verify, tmp_path: Path
) -> None:
    """It has no figures; nothing is concluded from it."""
    (tmp_path / "plan.toml").write_text("[plan]\n")
    code, out, _ = verify(CLAIM, tmp_path, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (4, "not_valid")


def test_live_run_needs_to_say_how_many_gpus(verify: Verify, tmp_path: Path) -> None:
    """A real endpoint's folder knows no machine: `--gpus` does."""
    latency = {"mean": 0.1, "p50": 0.1, "p99": 0.2, "n": 500}
    summary = {
        "loop": "open", "model": "my-model", "complete": True,
        "requests": {"ok": 500}, "tokens": {"input": 500_000, "output": 100_000},
        "throughput": {"output_tok_s": 900.0, "steady_output_tok_s": 1000.0},
        "ttft_intended_s": latency, "tpot_s": latency, "cost": {},
        "instrument": {"verdict": "ok"},
    }  # fmt: skip
    (tmp_path / "plan.toml").write_text("[plan]\n")
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert "give --gpus N" in verify(CLAIM, tmp_path)[2]
    found = document(verify, CLAIM, tmp_path, "--gpus", "8", code=3)
    assert found["measured"]["per_gpu"] == pytest.approx(125.0)
    assert found["measured"]["emulated"] is False
    same = {d["condition"]: d["same"] for d in found["differences"]}
    assert same["machine"] is True
    assert same["model"] is False
    assert same["precision"] is None
