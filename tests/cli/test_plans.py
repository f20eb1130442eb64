"""Built-in plans keep in their rows what they promise; in virtual time, by the verb."""

import json
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from simulated import Ran, Simulate

from loadstone.catalog.plans import load_plan, plan_names
from loadstone.catalog.workloads import load_lengths
from loadstone.cli.main import main

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TRACES = Path(__file__).parents[3] / "shared" / "calibration" / "traces"
LOADS: dict[str, tuple[str, ...]] = {
    "chat": ("--rate", "2", "--duration", "5m"),
    "agent": ("--rate", "1", "--duration", "2m"),
    "code": ("--rate", "1", "--duration", "5m"),
    "reasoning": ("--rate", "0.2", "--duration", "10m", "--drain", "20m"),
    "longcontext": ("--rate", "0.2", "--duration", "3m", "--drain", "5m",
                    "--max-model-len", "160000"),
    "batch": ("--duration", "30s"),
    "noisy-neighbour": ("--duration", "20s", "--max-num-seqs", "6"),
}  # fmt: skip
"""What each is run with here; the others at a rate of their own for half a minute."""


def rows_of(ran: Ran) -> list[dict[str, Any]]:
    """Return a run's rows as they are on disk, those that were answered."""
    assert ran.code in (0, 3, 4), ran.err
    rows = [json.loads(line) for line in ran.rows.splitlines()]
    return [row for row in rows if row["outcome"] == "ok"]


def conversations(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return rows by conversation, each in order of time."""
    found = defaultdict(list)
    for row in rows:
        found[row["conversation"]].append(row)
    assert "" not in found
    return [sorted(each, key=lambda row: row["intended_s"]) for each in found.values()]


@pytest.mark.parametrize("name", plan_names())
def test_every_built_in_plan_runs(simulate: Simulate, name: str) -> None:
    """And every answer is as long as was asked."""
    rate = () if "rate" in load_plan(name).options else ("--rate", "3")
    rows = rows_of(simulate(name, *LOADS.get(name, (*rate, "--duration", "30s"))))
    assert rows
    for row in rows:
        assert row["input_tokens"] == row["asked_input_tokens"]
        if row.get("stage") != "embed":
            assert row["output_tokens"] == row["asked_output_tokens"]
    assert {row["scenario"] for row in rows} == {
        each.name for each in load_plan(name).classes
    }


def test_chat_has_turns_pauses_history_and_shared_prompts(simulate: Simulate) -> None:
    """Each prompt holds all that was said before, and the cache has much of it."""
    ran = simulate("chat", *LOADS["chat"])
    rows = rows_of(ran)
    turns = Counter(len(each) for each in conversations(rows))
    assert set(turns) <= set(range(1, 7))
    assert max(turns) > 2
    pauses = []
    for said in conversations(rows):
        assert [row.get("turn", 0) for row in said] == list(range(len(said)))
        for before, after in pairwise(said):
            history = before["input_tokens"] + before["output_tokens"] + 1
            assert after["input_tokens"] > history
            pauses.append(after["intended_s"] - before["end_s"])
    assert fmean(pauses) == pytest.approx(8.0, rel=0.1)
    followers = [row for row in rows if row.get("turn", 0)]
    hits = sum(row.get("cached_tokens", 0) for row in followers)
    assert hits / sum(row["input_tokens"] for row in followers) > 0.2
    assert "prefix cache" in ran.notes


def test_agents_call_side_by_side_and_wait_for_all(simulate: Simulate) -> None:
    """Calls of a step are due together; the next step after the last of them."""
    seen = Counter[int]()
    for task in conversations(rows_of(simulate("agent", *LOADS["agent"]))):
        by_turn = defaultdict(list)
        for row in task:
            by_turn[row.get("turn", 0)].append(row)
        for turn, rows in by_turn.items():
            stage = "tool" if turn % 2 else "generate"
            assert {row.get("stage", "generate") for row in rows} == {stage}
            assert len({row["intended_s"] for row in rows}) == 1
            if turn:
                ended = max(row["end_s"] for row in by_turn[turn - 1])
                assert rows[0]["intended_s"] >= ended - 1e-6
            seen[len(rows)] += stage == "tool"
    assert {1, 2, 3, 4} <= set(seen)


def test_long_contexts_are_long(simulate: Simulate) -> None:
    """From 32k to 128k tokens."""
    rows = rows_of(simulate("longcontext", *LOADS["longcontext"]))
    lengths = [row["input_tokens"] for row in rows]
    assert 32_768 <= min(lengths) < 60_000
    assert 100_000 < max(lengths) <= 131_072


@pytest.mark.parametrize("name", ["mlperf-server", "mlperf-interactive"])
def test_mlperf_plans_have_the_lengths_and_limits(
    simulate: Simulate, name: str
) -> None:
    """Means within 2 % of the data set's, and both limits judged."""
    ran = simulate(name, "--rate", "100", "--duration", "60s")
    rows = rows_of(ran)
    for side in ("input", "output"):
        mean = fmean(row[f"{side}_tokens"] for row in rows)
        assert mean == pytest.approx(
            load_lengths(f"mlperf-llama2-70b-{side}").mean, rel=0.02
        )
    assert len(ran.document["slo"]) == 2


def test_a_fair_server_isolates_and_an_unfair_one_does_not(simulate: Simulate) -> None:
    """The same flood: the victim keeps its service, or loses it."""
    load = ("noisy-neighbour", "--max-num-seqs", "6", "--scheduling-policy")
    fair = simulate(*load, "fair").document["isolation"]
    unfair = simulate(*load, "fcfs").document["isolation"]
    assert fair["victim"] == unfair["victim"] == "victim"
    assert fair["score"] > 0.9
    assert unfair["score_interval"][1] < fair["score_interval"][0]
    assert fair["fairness"] > 0.98 > unfair["fairness"]


def test_a_user_in_python_asks_until_it_is_enough(simulate: Simulate) -> None:
    """The example of the documentation: each question a row, the first one's the whole.

    Its stages are the lookup and all that was asked, and begin when it was due.
    """
    ran = simulate(str(EXAMPLES / "persistent.toml"))
    asked = defaultdict(list)
    for row in rows_of(ran):
        number, _, extra = row["id"].partition("-")
        asked[number].append((int(extra or 0), row))
    more = 0
    for questions in asked.values():
        rows = [row for _, row in sorted(questions, key=lambda each: each[0])]
        first = rows[0]
        stages = [name for name, _ in first["stages"]]
        assert stages == ["lookup", *["generate"] * len(rows)]
        assert first["sent_s"] == first["intended_s"]
        assert all(row["beside"] for row in rows[1:])
        assert len(rows) <= 3
        answered = [row["output_tokens"] for row in rows]
        assert sum(answered[:-1]) < 100
        assert sum(answered) >= 100 or len(rows) == 3
        more += len(rows) > 1
    assert more


@pytest.mark.skipif(not TRACES.exists(), reason="the published traces are not here")
@pytest.mark.parametrize(
    ("name", "at", "n_in", "n_out"),
    [
        ("azure_llm_2023_conv.csv", None, "ContextTokens", "GeneratedTokens"),
        ("mooncake_conversation_trace.jsonl", "timestamp", "input_length",
         "output_length"),
    ],
)  # fmt: skip
def test_published_traces_are_replayed_exactly(
    simulate: Simulate, name: str, at: str | None, n_in: str, n_out: str
) -> None:
    """Arrivals to the microsecond, lengths to the token, over the first minutes."""
    rows = rows_of(
        simulate("--trace", str(TRACES / name), "--duration", "2m", "--drain", "10m",
                 "--max-model-len", "140000")
    )  # fmt: skip
    rows.sort(key=lambda row: row["id"])
    lines = (TRACES / name).read_text().splitlines()
    if at:
        told = [json.loads(line) for line in lines[: len(rows)]]
        due = [each[at] / 1000 for each in told]
    else:
        cells = [line.split(",") for line in lines[1 : len(rows) + 1]]
        told = [{n_in: int(c[1]), n_out: int(c[2])} for c in cells]
        due = [float(c[0].split(":")[2]) + 60 * int(c[0].split(":")[1]) for c in cells]
    assert len(rows) > 100
    for row, each, when in zip(rows, told, due, strict=True):
        assert (row["input_tokens"], row["output_tokens"]) == (each[n_in], each[n_out])
        assert row["intended_s"] == pytest.approx(when - due[0], abs=2e-6)


def test_rows_of_a_run_are_a_trace(simulate: Simulate, tmp_path: Path) -> None:
    """Replayed when they were intended, as long as they were asked."""
    first = rows_of(simulate("azure-chat", "--rate", "5", "--duration", "20s"))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in first))
    again = rows_of(simulate("--trace", str(path), "--duration", "20s"))
    start = min(row["intended_s"] for row in first)

    def asked(rows: list[dict[str, Any]], zero: float) -> list[tuple[float, int, int]]:
        return sorted(
            (r["intended_s"] - zero, r["input_tokens"], r["output_tokens"])
            for r in rows
        )

    for one, two in zip(asked(again, 0.0), asked(first, start), strict=True):
        assert one == pytest.approx(two, abs=2e-6)


def test_bad_rows_are_refused_or_counted(simulate: Simulate, tmp_path: Path) -> None:
    """By line; and what is left out is in the summary."""
    path = tmp_path / "t.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n0.5,10,5\nnever,1,1\n1.5,20,6\n"
    )
    refused = simulate("--trace", str(path))
    assert refused.code == 2
    assert "line 3: 'never' is not a timestamp" in refused.document["error"]["message"]
    skipped = simulate("--trace", str(path), "--skip-bad-rows", "true")
    (told,) = skipped.document["skipped_rows"].values()
    assert (told["kept"], told["skipped"]) == (2, 1)
    assert told["shown"] == ["line 3: 'never' is not a timestamp"]


def test_a_plan_is_listed_shown_checked_and_run(
    simulate: Simulate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user begins: copy one, change it, run it, run it again from its folder."""

    def verb(*args: str) -> str:
        with pytest.raises(SystemExit) as left:
            main(["plan", *args])
        assert not left.value.code
        return capsys.readouterr().out

    assert set(json.loads(verb("list", "--json"))) == set(plan_names())
    mine = tmp_path / "mine.toml"
    mine.write_text(verb("show", "chat").replace("[2, 6]", "2"))
    assert "mine" in verb("check", str(mine))
    first = simulate(str(mine), "--rate", "3", "--duration", "20s")
    assert first.document["scenario"] == "mine"
    folder = first.folder
    mine.unlink()
    again = simulate(str(folder / "plan.toml"))
    assert again.rows == first.rows
    told = json.loads(verb("ways", str(folder), str(again.folder), "--json"))
    assert [run["way"] for run in told["runs"]] == ["virtual time"] * 2
    assert set(told["runs"][1]["ratio"].values()) <= {1.0, None}


ONE = '[[class]]\nname = "own"\ninput = 5\n'


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
