"""`loadstone simulate`: the rack's published figure, honest notes, repeatable runs."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadstone.cli.main import main
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.summary import describe

PUBLISHED = 57_599, 62_804
"""Slowest and fastest VM of Azure's rack run, output tokens/s."""
RACK = 1_100_948.3
"""Its 18 VMs together."""
TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.6805900,396,109
2023-11-16 18:15:56.6805900,879,55
"""


@dataclass
class Ran:
    """What a run of the verb left behind."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def notes(self) -> str:
        """What the run says of itself."""
        return "\n".join(self.document["instrument"]["notes"])

    @property
    def rows(self) -> bytes:
        """The run's rows as they are on disk."""
        return (self.folder / "requests.jsonl").read_bytes()


Simulate = Callable[..., Ran]


@pytest.fixture
def simulate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Simulate:
    """Return a function that runs the verb, its folders below a temporary one."""

    def run(*args: str, json: bool = True) -> Ran:
        out = tmp_path / "runs"
        given = ["simulate", *args, "--out", str(out), *(["--json"] if json else [])]
        with pytest.raises(SystemExit) as left:
            main(given)
        said = capsys.readouterr()
        return Ran(
            int(left.value.code or 0), said.out, said.err, (out / "latest").resolve()
        )

    return run


# ------------------------------------------------------------- the rack, offline


@pytest.mark.timeout(60)  # some five seconds on one idle core
def test_long_offline_run_gives_the_published_rate(simulate: Simulate) -> None:
    """200,000 requests on one VM land within the spread of Azure's 18, and say how."""
    ran = simulate("--vms", "1", "--offline", "200000", "--no-rows")
    assert ran.code == 0
    summary = ran.document
    assert PUBLISHED[0] <= summary["throughput"]["output_tok_s"] <= PUBLISHED[1]
    assert PUBLISHED[0] <= summary["throughput"]["steady_output_tok_s"] <= PUBLISHED[1]
    steady = summary["throughput"]["steady_output_tok_s"]
    assert 18 * steady == pytest.approx(RACK, rel=0.01)
    assert summary["requests"]["ok"] == summary["requests"]["sent"] == 200_000
    assert summary["tokens"]["input"] / 200_000 == pytest.approx(222.7, rel=0.01)
    assert summary["tokens"]["output"] / 200_000 == pytest.approx(273.4, rel=0.01)
    assert "is inside the published 57,599 to 62,804" in ran.notes
    assert "not verified by MLCommons" in ran.notes
    assert "24.4 times the batch" in ran.notes
    assert "too short" not in ran.notes
    assert "requests wait up to" in ran.notes
    assert summary["instrument"]["verdict"] == "ok"
    assert {"max_num_seqs", "sigma"} <= {
        text.split()[0] for text in summary["assumptions"]
    }
    assert not (ran.folder / "requests.jsonl").exists()


def test_short_offline_run_says_it_is_mostly_ramp_and_drain(simulate: Simulate) -> None:
    """And its rate is below the published one."""
    ran = simulate("--offline", "4000", "--no-rows")
    assert ran.document["throughput"]["output_tok_s"] < PUBLISHED[0]
    assert "is outside the published" in ran.notes
    assert "0.5 times the batch" in ran.notes
    assert "too short, mostly ramp and drain" in ran.notes


@pytest.mark.parametrize(
    ("vms", "requests", "short"),
    [
        ("1", "639", True),
        ("1", "640", False),
        ("2", "1279", True),
        ("2", "1280", False),
    ],
)
def test_twenty_batches_are_a_long_run(
    simulate: Simulate, vms: str, requests: str, *, short: bool
) -> None:
    """A VM has four engines of eight sequences: 640 requests are 20 times the batch."""
    ran = simulate(
        "--vms", vms, "--offline", requests, "--max-num-seqs", "8", "--no-rows"
    )
    assert ("too short" in ran.notes) is short
    assert "20.0 times the batch" in ran.notes


def test_bill_by_hand(simulate: Simulate) -> None:
    """Three VMs at $112.48 an hour over the makespan, and where the price is from."""
    summary = simulate("--vms", "3", "--offline", "200").document
    cost, tokens = summary["cost"], summary["tokens"]["output"]
    total = 3 * 112.48 * summary["makespan_s"] / 3600
    assert cost["usd_total"] == pytest.approx(total)
    assert cost["usd_per_request"] == pytest.approx(total / 200)
    assert cost["usd_per_million_output_tokens"] == pytest.approx(total / tokens * 1e6)
    assert "112.48 USD/VM-hour" in " ".join(cost["assumptions"])


def test_one_request_has_every_figure(simulate: Simulate) -> None:
    """The smallest run there is; too few for a p99, and it says so."""
    summary = simulate("--offline", "1").document
    assert summary["throughput"]["output_tok_s"] > 0
    assert summary["ttft_s"]["n"] == 1
    assert summary["instrument"]["verdict"] == "too_few_samples"
    assert summary["instrument"]["reasons"] == ["1 requests; p99 needs 100"]


@pytest.mark.parametrize(
    ("n", "verdict", "code"), [("99", "too_few_samples", 4), ("100", "ok", 0)]
)
def test_a_hundred_requests_make_a_p99(
    simulate: Simulate, n: str, verdict: str, code: int
) -> None:
    """As in the verdicts and exit codes of `run`."""
    ran = simulate("--offline", n)
    assert ran.document["instrument"]["verdict"] == verdict
    assert ran.code == code


# ------------------------------------------------------------- runs that repeat


def test_same_seed_same_bytes(simulate: Simulate) -> None:
    """Rows are identical byte by byte; another seed gives others."""
    load = ("--rate", "20", "--duration", "20s")
    first, again, other = (simulate(*load, "--seed", seed) for seed in ("7", "7", "8"))
    assert first.folder != again.folder
    assert first.rows == again.rows
    assert first.rows != other.rows
    hashes = [
        tomllib.loads((ran.folder / "plan.toml").read_text())["plan_hash"]
        for ran in (first, again, other)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_more_vms_are_another_run_of_the_same_load(simulate: Simulate) -> None:
    """Arrivals and lengths stay; only the answers' times change."""

    def asked(ran: Ran) -> set[tuple[object, ...]]:
        return {
            (row["id"], row["intended_s"], row["input_tokens"], row["output_tokens"])
            for row in map(json.loads, ran.rows.splitlines())
        }

    load = ("--rate", "20", "--duration", "20s")
    one, two = simulate(*load), simulate(*load, "--vms", "2")
    assert asked(one) == asked(two)
    assert one.rows != two.rows


def test_rows_are_the_summary(simulate: Simulate) -> None:
    """Each request has one row, and folding them gives the printed figures."""
    ran = simulate("--rate", "30", "--duration", "10s")
    rows = [RequestRecord.from_json(json.loads(line)) for line in ran.rows.splitlines()]
    summary = ran.document
    assert len({row.id for row in rows}) == len(rows) == summary["requests"]["ok"]
    assert sum(row.output_tokens for row in rows) == summary["tokens"]["output"]
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        values = [v for row in rows if (v := getattr(row, name)) is not None]
        assert describe(values) == pytest.approx(summary[name], abs=2e-6)
    assert summary["icl_s"]["n"] == sum(row.output_tokens - 1 for row in rows)
    assert summary["send_lag_s"]["p99"] == 0.0
    for row in rows:
        assert row.truth is not None
        assert 0 <= row.truth.engine < 4
        assert row.ttft_error_s == pytest.approx(0.0, abs=2e-6)


def test_folder_holds_plan_and_summary(simulate: Simulate) -> None:
    """What was printed is what is kept, with all that is needed to run it again."""
    ran = simulate("--offline", "150", "--seed", "3", "--max-num-seqs", "64")
    assert json.loads((ran.folder / "summary.json").read_text()) == ran.document
    plan = tomllib.loads((ran.folder / "plan.toml").read_text())
    assert (plan["offline"], plan["plan"]["seed"]) == (150, 3)
    assert plan["plan"]["scenario"] == ran.document["scenario"] == "mlperf"
    assert plan["engine"]["max_num_seqs"] == 64
    assert "simulate-mlperf" in ran.folder.name


# ------------------------------------------------------------- other loads


def test_open_loop_below_saturation(simulate: Simulate) -> None:
    """TTFT is a few steps, output keeps up with the arrivals."""
    summary = simulate("--rate", "50", "--duration", "5m", "--no-rows").document
    assert (summary["loop"], summary["scenario"]) == ("open", "chat")
    assert summary["requests"]["ok"] == pytest.approx(15_000, abs=370)
    assert summary["throughput"]["steady_output_tok_s"] == pytest.approx(
        50 * 211, rel=0.03
    )
    # A lone step takes 20 ms; half a step is waited for, and one or two are taken.
    assert 0.03 < summary["ttft_s"]["p50"] < 0.1
    assert 1.5 < summary["ttft_s"]["mean"] / summary["tpot_s"]["mean"] < 4


def test_trace_is_replayed(simulate: Simulate, tmp_path: Path) -> None:
    """Its lengths and its times, twice as fast, as far as the duration goes."""
    trace = tmp_path / "t.csv"
    trace.write_text(TRACE)
    ran = simulate("--trace", str(trace), "--speedup", "2", "--duration", "4s")
    rows = sorted(map(json.loads, ran.rows.splitlines()), key=lambda row: row["id"])
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [
        (374, 44),
        (396, 109),
    ]
    assert [row["intended_s"] for row in rows] == pytest.approx([0.0, 2.0])
    assert ran.document["loop"] == "trace"


def test_table_for_people(simulate: Simulate) -> None:
    """Without --json: figures, price and verdict in words on stdout."""
    ran = simulate("--offline", "200", json=False)
    assert ran.code == 0
    for part in (
        "TTFT, from send",
        "TPOT",
        "output tokens/s",
        "per request",
        "verdict: ok",
    ):
        assert part in ran.out


# ------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        ((), "usage", "exactly one of --offline N, --rate REQ/S, --trace FILE"),
        (("--offline", "5", "--rate", "1"), "usage", "exactly one of"),
        (("--rate", "1", "--trace", "t.csv"), "usage", "exactly one of"),
        (("--rate", "0"), "usage", "rate must be at least"),
        (("--rate", "nan"), "usage", "rate must be at least"),
        (("--rate", "1", "--duration", "soon"), "usage", "'soon' is not a duration"),
        (("--trace", "none.csv"), "usage", "cannot read the trace none.csv"),
        (("--offline", "5", "--preset", "a100"), "catalog", "no preset 'a100'"),
        (("--offline", "5", "--model", "gpt-5"), "catalog", "no model 'gpt-5'"),
        (
            ("--offline", "5", "--max-num-batched-tokens", "2047"),
            "usage",
            "(2047) is below max_num_seqs (2048)",
        ),
        (
            ("--offline", "5", "--max-model-len", "99999999"),
            "not_modelled",
            "more than the KV cache holds",
        ),
    ],
)
def test_wrong_usage_is_a_document_too(
    simulate: Simulate, args: tuple[str, ...], code: str, why: str
) -> None:
    """Exit code 2, the error as JSON on stdout, in words on stderr; no run folder."""
    ran = simulate(*args)
    assert ran.code == 2
    error = ran.document["error"]
    assert (error["code"], set(error)) == (code, {"code", "message", "hint"})
    assert why in error["message"]
    assert f"error: {error['message']}" in ran.err
    assert not ran.folder.exists()


@pytest.mark.parametrize(
    "args",
    [
        ("--offline", "0"),
        ("--offline", "x"),
        ("--vms", "0"),
        ("--router", "dice"),
        ("--no",),
    ],
)
def test_options_that_click_refuses_are_wrong_usage(
    simulate: Simulate, args: tuple[str, ...]
) -> None:
    """In words with the usage, or as a document; the same exit code and message."""
    words, document = simulate(*args, json=False), simulate(*args)
    assert (words.code, document.code) == (2, 2)
    error = document.document["error"]
    assert error["code"] == "usage"
    assert args[0] in error["message"]
    assert f"Error: {error['message']}" in words.err
    assert words.out == ""


def test_request_that_never_fits_is_refused(simulate: Simulate) -> None:
    """A model length below the workload's longest is an error, not a run that hangs."""
    ran = simulate("--offline", "500", "--max-model-len", "100")
    assert ran.code == 2
    assert ran.document["error"]["code"] == "context_length_exceeded"
