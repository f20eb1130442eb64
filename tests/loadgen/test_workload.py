"""From a plan to its requests: files are read, and those that cannot be are named."""

from pathlib import Path

import pytest

from loadgen.files import read_text
from loadgen.workload import lengths_of, mix_of, requests_of
from loadstone.catalog.workloads import load_lengths
from loadstone.errors import UsageError
from loadstone.traffic.plan import Plan, schedule

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:47.6805900,396,109
2023-11-16 18:16:46.6805900,1,2
"""


@pytest.mark.parametrize(
    ("scenario", "prefix"),
    [("azure-chat", "azure-2023-conversation"), ("mlperf", "mlperf-llama2-70b")],
)
def test_scenario_names_its_length_tables(scenario: str, prefix: str) -> None:
    """Input first, output second."""
    assert lengths_of(Plan(scenario=scenario)) == (
        load_lengths(f"{prefix}-input"),
        load_lengths(f"{prefix}-output"),
    )


def test_open_loop_draws_its_scenario() -> None:
    """The same again, as every process of a run has to."""
    plan = Plan(scenario="azure-chat", rate=20.0, duration_s=30.0, seed=4)
    requests = requests_of(plan)
    assert requests == requests_of(plan) == schedule(plan, mix_of(plan))
    assert len(requests) == pytest.approx(600, abs=75)


def test_trace_is_read_from_its_file(tmp_path: Path) -> None:
    """Windows line ends and a byte order mark do no harm."""
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xef\xbb\xbf" + TRACE.replace("\n", "\r\n").encode())
    requests = requests_of(Plan(trace=str(path), speedup=2.0, duration_s=30.0))
    assert [(r.input_tokens, r.output_tokens) for r in requests] == [
        (374, 44),
        (396, 109),
    ]
    assert [r.intended_s for r in requests] == pytest.approx([0.0, 0.5], abs=1e-6)


def test_wrong_trace_is_named_by_path_and_line(tmp_path: Path) -> None:
    """As the reader says it."""
    path = tmp_path / "trace.csv"
    path.write_text(TRACE + "never,1,1\n")
    with pytest.raises(
        UsageError, match=r"trace\.csv: line 5: 'never' is not a timestamp"
    ):
        requests_of(Plan(trace=str(path)))


def test_closed_loop_has_no_requests_yet() -> None:
    """Its users draw them as they go."""
    assert requests_of(Plan(users=5)) == []


def test_unreadable_files_are_explained(tmp_path: Path) -> None:
    """Missing, a folder, or no text: what it was for, which one, and why."""
    binary = tmp_path / "picture.png"
    binary.write_bytes(b"\x89PNG\xff")
    packed = tmp_path / "trace.csv.zst"
    packed.write_bytes(b"\x28\xb5\x2f\xfd\x00")
    for path, why in (
        (tmp_path / "none.csv", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (binary, "is not UTF-8 text"),
        (packed, "it is packed by zstd: unpack it (gzip is read as it is)"),
    ):
        with pytest.raises(UsageError) as caught:
            read_text(str(path), "trace")
        assert caught.value.message == f"cannot read the trace {path}: {why}"
