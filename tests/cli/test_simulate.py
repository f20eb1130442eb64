"""`loadstone simulate`: the rack's published figure, honest notes, repeatable runs."""

import itertools
import json
import os
import re
import signal
import tomllib
from pathlib import Path
from statistics import fmean

import pytest
import tomli_w
from simulated import Ran, Simulate

from loadgen.options import plan_of, read_options
from loadgen.workload import requests_of
from loadstone.report.virtual import VirtualProgress
from loadstone.traffic.plan import plan_hash
from loadstone.traffic.record import RequestRecord
from loadstone.traffic.summary import describe

PUBLISHED = 57_599, 62_804
"""Slowest and fastest VM of Azure's rack run, output tokens/s."""
RACK = 1_100_948.3
"""Its 18 VMs together."""
ONE = '[[class]]\nname = "own"\ninput = 5\n'
TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.6805900,396,109
2023-11-16 18:15:56.6805900,879,55
"""


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


def test_vms_of_a_rack_differ_as_published_ones_do(simulate: Simulate) -> None:
    """Slowest and fastest of 18 lie as far apart; without the spread they are alike."""
    load = ("--racks", "1", "--offline", "36000", "--no-rows", "--seed", "5")
    rates = simulate(*load).document["vm_output_tok_s"]
    assert len(rates) == 18
    # The lengths drawn for a VM's 2,000 requests differ by a per cent or two as well.
    assert min(rates) / fmean(rates) == pytest.approx(57_599.1 / 61_163.8, rel=0.03)
    assert max(rates) / fmean(rates) == pytest.approx(62_803.9 / 61_163.8, rel=0.03)
    ran = simulate(*load, "--no-vm-spread")
    even = ran.document["vm_output_tok_s"]
    assert max(even) / min(even) < max(rates) / min(rates)
    assert f"{sum(even):,.0f} together; published 57,599 to 62,804" in ran.notes


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
    assert summary["instrument"]["reasons"] == ["1 answered requests; p99 needs 100"]


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
        told = {stat: summary[name][stat] for stat in describe(values)}
        assert describe(values) == pytest.approx(told, abs=2e-6)
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
    assert (plan["plan"]["offline"], plan["plan"]["seed"]) == (150, 3)
    assert plan["plan"]["scenario"] == ran.document["scenario"] == "mlperf"
    assert plan["options"]["max_num_seqs"] == 64
    assert plan["plan_hash"] == ran.document["plan_hash"]
    assert ran.document["run"] == ran.folder.name
    environment = json.loads((ran.folder / "environment.json").read_text())
    assert (environment["mock"], environment["workers"]) == (None, 1)
    assert "simulate-mlperf" in ran.folder.name


@pytest.mark.parametrize(
    "load",
    [
        ("--offline", "200", "--policy", "trtllm_no_evict", "--max-tokens", "2048"),
        ("--rate", "20", "--duration", "10s", "--racks", "1", "--seed", "5"),
        ("--users", "30", "--think", "500ms", "--duration", "20s", "--warmup", "5s"),
    ],
)
def test_plan_is_run_again_from_its_folder(
    simulate: Simulate, load: tuple[str, ...]
) -> None:
    """The same rows byte by byte; an option given beside it wins."""
    first = simulate(*load)
    plan = str(first.folder / "plan.toml")
    again, other = simulate(plan), simulate(plan, "--seed", "6")
    assert again.rows == first.rows != other.rows
    assert again.document["plan_hash"] == first.document["plan_hash"]
    assert other.document["plan_hash"] != first.document["plan_hash"]


def test_plan_of_a_live_run_is_simulated(simulate: Simulate, tmp_path: Path) -> None:
    """Its options say the same here; those of the endpoint do not matter."""
    plan = tmp_path / "plan.toml"
    values = read_options({"rate": "40", "duration": "5s", "seed": "4", "warmup": "1s"})
    options = {name: str(value) for name, value in values.items() if value is not None}
    del options["scenario"]
    # The plan a live run would have hashed.
    live = plan_of(values, host="http://x", users=None)
    tables = {"plan": live.to_toml(), "options": options | {"host": "http://x"}}
    plan.write_text(tomli_w.dumps(tables))
    ran = simulate(str(plan))
    assert ran.document["plan_hash"] == plan_hash(live, requests_of(live))
    assert ran.document["requests"]["sent"] == len(requests_of(live))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rate = ", " is not TOML: Invalid value"),
        ("rate = 5", ", line 1: a plan has no 'rate'"),
        (ONE + "[options]\nrats = 5", ", line 5: no option 'rats'"),
        (ONE + '[options]\nrate = "5"\nignore_eos = "False"', ": ignore_eos"),
    ],
)
def test_file_that_is_no_plan_is_refused(
    simulate: Simulate, tmp_path: Path, text: str, why: str
) -> None:
    """With its name."""
    plan = tmp_path / "p.toml"
    plan.write_text(text)
    ran = simulate(str(plan))
    assert ran.code == 2
    assert re.search(f"p.toml{why}", ran.document["error"]["message"])


# ------------------------------------------------------------- other loads


def test_open_loop_below_saturation(simulate: Simulate) -> None:
    """TTFT is a few steps, output keeps up with the arrivals."""
    summary = simulate("--rate", "50", "--duration", "5m", "--no-rows").document
    assert (summary["loop"], summary["scenario"]) == ("open", "azure-chat")
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


MOONCAKE = """
{"timestamp": 0, "input_length": 1100, "output_length": 40, "hash_ids": [7, 8, 9]}
{"timestamp": 4000, "input_length": 1100, "output_length": 40, "hash_ids": [7, 8, 9]}
{"timestamp": 8000, "input_length": 600, "output_length": 9, "hash_ids": [7, 11]}
"""


def test_prefixes_of_a_trace_hit_the_cache(simulate: Simulate, tmp_path: Path) -> None:
    """The second has all its 34 whole blocks of 32 cached; the third shares 16."""
    trace = tmp_path / "t.jsonl"
    trace.write_text(MOONCAKE)
    load = ("--trace", str(trace), "--router", "prefix_affine")
    ran = simulate(*load, "--duration", "9s")
    hits, asked = 34 * 32 + 16 * 32, 1100 + 1100 + 600
    assert f"prefix cache: {hits / asked:.1%} of the prompt tokens" in ran.notes
    first, second, third = (
        row["first_s"] - row["intended_s"]
        for row in sorted(map(json.loads, ran.rows.splitlines()), key=lambda r: r["id"])
    )
    assert first > max(second, third)
    off = simulate("--trace", str(trace), "--no-enable-prefix-caching")
    assert "prefix cache" not in off.notes


def test_priorities_of_a_trace_decide_who_is_next(
    simulate: Simulate, tmp_path: Path
) -> None:
    """Engines of one place each: the lower number goes first, whoever came first."""
    trace = tmp_path / "t.jsonl"
    line = {"timestamp": 0, "input_length": 10, "output_length": 5}
    trace.write_text(
        "\n".join(json.dumps(line | {"priority": 16 - i}) for i in range(16))
    )
    load = ("--trace", str(trace), "--max-num-seqs", "1")
    ran = simulate(*load, "--scheduling-policy", "priority")
    rows = sorted(map(json.loads, ran.rows.splitlines()), key=lambda r: r["first_s"])
    for engine in range(4):
        served = [int(r["id"]) for r in rows if r["truth"]["engine"] == engine]
        assert len(served) == 4
        assert served == sorted(served, reverse=True)
    refused = simulate(*load)
    message = refused.document["error"]["message"]
    assert "scheduling is first come, first served" in message


def test_closed_loop_obeys_the_response_time_law(simulate: Simulate) -> None:
    """N = X (R + Z): users, requests/s, answer, pause; whatever the engine does."""
    ran = simulate(
        "--users", "200", "--think", "4s", "--duration", "10m", "--warmup", "1m"
    )
    summary = ran.document
    assert (summary["loop"], summary["scenario"]) == ("closed", "azure-chat")
    rows = [RequestRecord.from_json(json.loads(line)) for line in ran.rows.splitlines()]
    window = [row for row in rows if 60.0 <= row.end_s < 600.0]
    rate = len(window) / 540.0
    stay = sum(row.e2e_s for row in window) / len(window)
    assert rate * (stay + 4.0) == pytest.approx(200, rel=0.02)
    assert max(row.intended_s for row in rows) < 600.0


def test_one_user_never_queues(simulate: Simulate) -> None:
    """Alone, each request is prefilled at once, and the next comes after the answer."""
    ran = simulate("--users", "1", "--duration", "5m")
    rows = [RequestRecord.from_json(json.loads(line)) for line in ran.rows.splitlines()]
    assert len(rows) > 30
    for before, after in itertools.pairwise(rows):
        assert after.intended_s == pytest.approx(before.end_s, abs=2e-6)
    # At most 14,050 prompt tokens in chunks of 3,584: four steps, alone.
    assert max(row.ttft_s or 0.0 for row in rows) < 5 * 0.15
    tpots = [row.tpot_s for row in rows if row.tpot_s and row.output_tokens > 50]
    assert max(tpots) / min(tpots) < 1.1


def test_a_rack_is_eighteen_vms(simulate: Simulate) -> None:
    """And not both can be said."""
    load = ("--rate", "50", "--duration", "5s")
    assert simulate(*load, "--racks", "2").document["vms"] == 36
    assert simulate(*load).document["vms"] == 1
    ran = simulate(*load, "--racks", "1", "--vms", "18")
    assert "once: --vms N or --racks N" in ran.document["error"]["message"]


def test_what_is_left_after_the_drain_is_incomplete(simulate: Simulate) -> None:
    """As in a live run: it has no first token, and it misses every objective."""
    ran = simulate("--rate", "50", "--duration", "10s", "--drain", "1s")
    requests = ran.document["requests"]
    assert requests["incomplete"] > 50
    assert requests["ok"] + requests["incomplete"] == requests["sent"]
    rows = [RequestRecord.from_json(json.loads(line)) for line in ran.rows.splitlines()]
    assert max(row.end_s for row in rows) == 11.0
    assert all(row.end_s <= 11.0 for row in rows if row.ok)
    assert ran.document["errors"] == {"incomplete": requests["incomplete"]}


def test_warm_up_is_left_out_of_the_percentiles(simulate: Simulate) -> None:
    """And counted among the requests."""
    ran = simulate("--rate", "30", "--duration", "20s", "--warmup", "10s")
    summary = ran.document
    early = sum(json.loads(line)["intended_s"] < 10 for line in ran.rows.splitlines())
    assert summary["requests"]["warmup"] == early > 200
    assert summary["ttft_s"]["n"] == summary["requests"]["ok"] - early


def test_declared_maximum_costs_a_policy_that_never_evicts(simulate: Simulate) -> None:
    """Room for 2,048 tokens is kept for answers of 273: the batch is smaller."""
    load = ("--offline", "30000", "--no-rows", "--policy", "trtllm_no_evict")
    true, declared = simulate(*load), simulate(*load, "--max-tokens", "2048")
    rate = [r.document["throughput"]["steady_output_tok_s"] for r in (true, declared)]
    assert rate[1] < 0.97 * rate[0]
    cut = simulate("--offline", "300", "--max-tokens", "100")
    rows = [json.loads(line) for line in cut.rows.splitlines()]
    assert max(row["output_tokens"] for row in rows) == 100
    assert {row["asked_output_tokens"] for row in rows} == {100}
    reasons = {(row["output_tokens"] == 100, row["finish_reason"]) for row in rows}
    assert reasons == {(True, "length"), (False, "stop")}


def test_speculation_gives_more_tokens_in_a_step(simulate: Simulate) -> None:
    """2.5 of them in steps that are hardly longer: TPOT falls by that, gaps do not."""
    load = ("--rate", "10", "--duration", "20s", "--max-num-seqs", "512")
    drafts = ("--num-speculative-tokens", "3", "--speculative-acceptance", "2.5")
    plain, quick = simulate(*load).document, simulate(*load, *drafts)
    assert plain["tpot_s"]["mean"] / quick.document["tpot_s"]["mean"] == pytest.approx(
        2.5, rel=0.05
    )
    assert quick.document["tokens"] == plain["tokens"]
    # Three of five tokens come with another one, as from the mock.
    gaps, before = quick.document["icl_s"], plain["icl_s"]
    assert gaps["n"] == before["n"]
    assert gaps["p50"] < 1e-6
    assert gaps["p90"] == pytest.approx(before["p50"], rel=0.1)
    assert gaps["mean"] * 2.5 == pytest.approx(before["mean"], rel=0.05)


def test_pools_keep_prefill_out_of_the_gaps(simulate: Simulate) -> None:
    """Long prompts no longer hold up those who decode; the run says what it assumes."""
    load = ("--rate", "20", "--duration", "30s")
    mixed = simulate(*load).document
    split = simulate(*load, "--prefill-gpus", "2", "--decode-gpus", "2")
    assert split.document["requests"]["ok"] == mixed["requests"]["ok"]
    assert split.document["tokens"] == mixed["tokens"]
    assert split.document["icl_s"]["p99"] < 0.5 * mixed["icl_s"]["p99"]
    assert split.document["vms"] == 1
    assert "decode engines have the step law" in split.notes
    engines = {json.loads(line)["truth"]["engine"] for line in split.rows.splitlines()}
    assert engines == {2, 3}


def test_stopped_run_keeps_what_it_has(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C half way: rows and figures so far, `complete` false, exit code 4."""
    shown = 0

    def stop(*_: object, **__: object) -> None:
        nonlocal shown
        shown += 1
        if shown == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(VirtualProgress, "show", stop)
    before = signal.getsignal(signal.SIGINT)
    ran = simulate("--rate", "100", "--duration", "1h")
    assert signal.getsignal(signal.SIGINT) is before
    requests = ran.document["requests"]
    assert ran.code == 4
    assert ran.document["complete"] is False
    assert requests["ok"] == pytest.approx(2048, abs=5)
    assert requests["cancelled"] > 100
    assert requests["sent"] == requests["ok"] + requests["cancelled"]
    assert len(ran.rows.splitlines()) == requests["sent"]
    assert json.loads((ran.folder / "summary.json").read_text()) == ran.document


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
        (("--users", "5", "--rate", "1"), "usage", "exactly one of"),
        (("--users", "5", "--speedup", "2"), "usage", "--speedup has no meaning here"),
        (("--rate", "5", "--think", "2s"), "usage", "--think has no meaning here"),
        (("--rate", "5", "--slo", "no.toml"), "usage", "cannot read the SLO file"),
        (
            ("--rate", "5", "--router", "prefix_affine"),
            "usage",
            "no prefix is cached",
        ),
        (
            ("--rate", "5", "--scheduling-policy", "priority"),
            "usage",
            "no request has a priority",
        ),
        (("--recipe", "mlperf-server"), "usage", "needs a rate"),
        (("--recipe", "mlperf-server", "--offline", "5"), "usage", "needs a rate"),
        (("--recipe", "mlperf-offline", "--rate", "5"), "usage", "has no rate"),
        (
            ("--recipe", "mlperf-server", "--rate", "5", "--slo", "s.toml"),
            "usage",
            "--slo and --recipe",
        ),
        (
            ("--recipe", "mlperf-server", "--rate", "5", "--max-tokens", "9"),
            "usage",
            "--max-tokens and --recipe",
        ),
        (("--find-max",), "usage", "needs objectives"),
        (
            ("--find-max", "--recipe", "mlperf-server", "--rate", "5"),
            "usage",
            "leave --rate out",
        ),
        (("--find-max", "--recipe", "mlperf-offline"), "usage", "has no rate"),
        (("--rate", "5", "--tolerance", "0.1"), "usage", "--tolerance is for a search"),
        (
            ("--find-max", "--recipe", "mlperf-server", "--repeats", "2"),
            "usage",
            "an odd number of repeats, not 2",
        ),
        (("--rate", "5", "--prices", "free"), "catalog", "no price 'free'"),
        *(
            (("--offline", "5", flag, "1s"), "usage", f"{flag} has no meaning here")
            for flag in ("--duration", "--drain", "--warmup")
        ),
        (
            ("--recipe", "mlperf-offline", "--duration", "1s"),
            "usage",
            "--duration has no meaning here",
        ),
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


def test_help_tells_its_own_defaults(simulate: Simulate) -> None:
    """A virtual run is ten minutes long where a live one is one, and it is."""
    assert "[default: 10m]" in simulate("--help", json=False).out
    assert simulate("--rate", "1").document["requests"]["sent"] > 500


def test_window_is_what_is_measured(simulate: Simulate) -> None:
    """Percentiles and objectives of the requests due in it; of offline ones none is."""
    load = ("--rate", "30", "--duration", "20s", "--window", "5s:15s", "--no-rows")
    summary = simulate(*load).document
    assert summary["window"]["how"] == "given"
    assert 200 < summary["ttft_s"]["n"] == summary["window"]["answers"] < 400
    assert summary["requests"]["ok"] > 500
    refused = simulate("--offline", "10", "--window", "1s:")
    assert (refused.code, refused.document["error"]["code"]) == (2, "usage")
    searched = simulate("--recipe", "mlperf-server", "--find-max", "--window", "1s:")
    assert "--window and --find-max" in searched.document["error"]["message"]
