"""`loadstone run rag` against the mock, and the same plan in virtual time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Results, latest, loadstone, mock_server

from loadgen.options import plan_of, read_options
from loadgen.rag import check_options
from loadstone.errors import UsageError
from loadstone.retrieval.pipeline import TAKES_S
from loadstone.runs import read_rows

STAGES = ["tokenize", "embed", "retrieve", "assemble", "generate", "postprocess"]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """Run a mock."""
    with mock_server() as url:
        yield url


@pytest.fixture(scope="module")
def run(mock: str, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Drive it with 50 pipelines a second, on the sample."""
    out = tmp_path_factory.mktemp("runs")
    done = loadstone(
        "run", "rag", "--rate", "50", "--duration", "3s", "--host", mock,
        "--out", str(out),
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    return latest(out)


def pipelines(run: Results) -> list[Row]:
    """Return the rows of pipelines."""
    return [row for row in run.rows if not row.get("beside")]


def test_stages_add_up_to_the_whole(run: Results) -> None:
    """Within 2 ms the issue asks; here they leave no gap but by rounding."""
    rows = pipelines(run)
    assert len(rows) > 100
    assert {row["outcome"] for row in rows} == {"ok"}
    for row in rows:
        assert [name for name, _ in row["stages"]] == STAGES
        whole = sum(seconds for _, seconds in row["stages"])
        assert whole == pytest.approx(row["end_s"] - row["sent_s"], abs=2e-5)
        assert min(seconds for _, seconds in row["stages"]) >= 0


def test_stages_end_where_the_requests_do(run: Results) -> None:
    """The embedding's row and the answer's stamps lie inside their stages."""
    beside = {row["id"]: row for row in run.rows if row.get("beside")}
    rows = pipelines(run)
    assert len(beside) == len(rows)
    for row in rows:
        took, embed = dict(row["stages"]), beside[f"{row['id']}-1"]
        assert (embed["stage"], embed["status"]) == ("embed", 200)
        embedded = row["sent_s"] + took["tokenize"] + took["embed"]
        assert embed["end_s"] == pytest.approx(embedded, abs=1e-5)
        assert embed["sent_s"] >= row["sent_s"]
        asked = embedded + took["retrieve"] + took["assemble"]
        answered = asked + took["generate"]
        assert asked < row["first_s"] <= row["last_s"] <= answered + 1e-5
        assert row["end_s"] >= answered - 1e-5


def test_prompts_are_as_long_as_they_are_said_to_be(run: Results) -> None:
    """The server counts what retrieval assembled; only the instruction is cached."""
    for row in pipelines(run):
        assert row["input_tokens"] == row["asked_input_tokens"] > 100
        assert row.get("cached_tokens", 0) < 64


def test_the_summary_tells_shares_and_recall(run: Results) -> None:
    """Shares add up, figures are of pipelines alone, and it counts each row once."""
    summary, rows = run.summary, pipelines(run)
    stages = summary["stages"]
    assert stages["n"] == len(rows) == summary["requests"]["beside"]
    assert summary["requests"]["sent"] == len(run.rows)
    for name in ("p50", "p99"):
        assert list(stages["share"][name]) == STAGES
        assert sum(stages["share"][name].values()) == pytest.approx(1.0, abs=1e-3)
    assert stages["share"]["p50"]["generate"] > 0.5
    retrieval = stages["retrieval"]
    assert (retrieval["searches"], retrieval["empty"]) == (len(rows), 0)
    assert retrieval["labelled"] == len(rows)
    assert retrieval["recall"] >= 0.9
    e2e = sorted(row["end_s"] - row["sent_s"] for row in rows)
    assert summary["e2e_s"]["n"] == len(rows)
    assert summary["e2e_s"]["mean"] == pytest.approx(sum(e2e) / len(e2e), rel=1e-3)
    assert summary["throughput"]["req_s"] == pytest.approx(
        len(rows) / summary["makespan_s"]
    )


def test_the_instrument_judges_arrivals_and_not_parts(run: Results) -> None:
    """What was asked was sent, and the truth is held against the answer alone."""
    instrument = run.summary["instrument"]
    assert instrument["scheduled"] == len(run.rows)
    assert run.summary["requests"]["dropped"] == 0
    assert "rate_not_delivered" not in instrument["verdict"]
    # The error is of the answer's first token, not of the pipeline's.
    shortest = min(dict(row["stages"])["embed"] for row in pipelines(run))
    assert instrument["ttft_error_s"]["p50"] < shortest


def test_metrics_have_the_stages(run: Results) -> None:
    """One value for each pipeline and stage; sums are those of the rows."""
    rows = pipelines(run)
    name = "loadstone_client_stage_duration_seconds"
    assert run.metric(f"{name}_count") == len(rows) * len(STAGES)
    whole = sum(row["end_s"] - row["sent_s"] for row in rows)
    assert run.metric(f"{name}_sum") == pytest.approx(whole, rel=1e-4)
    assert run.metric("loadstone_retrieved_passages_sum") == 5 * len(rows)


def test_postgres_and_another_endpoint_for_embeddings(
    mock: str, server: str, tmp_path: Path
) -> None:
    """The store on a server is searched, and the plan says with what."""
    made = loadstone("index", "sample", "--store", server)
    assert made.returncode == 0, made.stderr
    with mock_server() as embeds:
        done = loadstone(
            "run", "rag", "--rate", "10", "--duration", "2s", "--host", mock,
            "--store", server, "--questions", "sample", "--passages", "3",
            "--embeddings-host", embeds, "--out", str(tmp_path),
        )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    rows = pipelines(latest(tmp_path))
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {row["hits"] for row in rows} == {3}
    plan = (latest(tmp_path).path / "plan.toml").read_text()
    assert "postgresql://" in plan
    assert not (latest(tmp_path).path / "corpus.db").exists()


@pytest.mark.parametrize(
    ("scenario", "given", "said"),
    [
        ("rag", {"store": "a.db"}, "--store without --questions"),
        ("rag", {"store": "redis://x", "questions": "sample"}, "redis"),
        ("rag", {"passages": "0"}, "1 or more"),
        ("azure-chat", {"passages": "3"}, "the plan does not retrieve"),
    ],
)
def test_options_that_make_no_sense(
    scenario: str, given: dict[str, str], said: str
) -> None:
    """Are refused before anything is asked."""
    values = read_options({"scenario": scenario, "rate": "1"} | given)
    plan = plan_of(values, host="http://127.0.0.1:1", users=None)
    with pytest.raises(UsageError, match=said):
        check_options(plan, values)


def test_a_password_in_a_store_is_refused(mock: str, tmp_path: Path) -> None:
    """Before a request is sent, and it is not repeated."""
    done = loadstone(
        "run", "rag", "--rate", "5", "--duration", "1s", "--host", mock,
        "--store", "postgresql://u:hunter2@/x", "--questions", "sample",
        "--out", str(tmp_path / "runs"),
    )  # fmt: skip
    assert done.returncode == 2
    assert "holds a password" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_store_of_other_dimensions_is_refused(mock: str, tmp_path: Path) -> None:
    """Before the run, since every search would fail."""
    from loadstone.retrieval.passages import Cut, Passage
    from loadstone.retrieval.store import About, packed, write_store

    store = str(tmp_path / "other.db")
    rows = [(Passage("d", 0, "text"), packed([1.0, 0.0]))]
    write_store(store, About.made("other", 2, Cut(), 1), rows)
    done = loadstone("run", "rag", "--host", mock, "--rate", "5", "--duration", "1s",
                     "--store", store, "--questions", "sample",
                     "--out", str(tmp_path / "runs"))  # fmt: skip
    assert done.returncode == 1
    assert "embeds in 1024 dimensions" in done.stdout + done.stderr


def test_virtual_time_takes_the_stated_times(tmp_path: Path) -> None:
    """Rows have the same stages; those on this side take exactly what is stated."""
    done = loadstone("simulate", "rag", "--rate", "20", "--duration", "10s",
                     "--out", str(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [row for row in read_rows((tmp_path / "latest").resolve()) if not row.beside]
    assert len(rows) > 150
    for row in rows:
        took = dict(row.stages)
        assert list(took) == STAGES
        assert {name: took[name] for name in TAKES_S} == pytest.approx(
            TAKES_S, abs=1e-6
        )
        assert sum(took.values()) == pytest.approx(row.e2e_s, abs=1e-5)
        assert row.hits == 5
    recalls = [row.recall for row in rows if row.recall is not None]
    assert sum(recalls) / len(rows) >= 0.9
