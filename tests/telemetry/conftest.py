"""Two traced runs that several modules look at, and the trace they replay."""

from pathlib import Path

import pytest
from collector import collecting
from processes import latest
from traced_runs import (
    OUTPUT,
    ROWS,
    TOO_LONG,
    Seen,
    drive,
    old_durations,
    sampled,
    wait_for,
    watched_mock,
)


@pytest.fixture(scope="session")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a trace of short requests, of which the last but one cannot be served."""
    path = tmp_path_factory.mktemp("trace") / "short.csv"
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for i in range(ROWS):
        prompt = TOO_LONG if i == ROWS - 2 else 50 + i
        lines.append(f"2026-01-01 00:00:{i / 60:010.7f},{prompt},{OUTPUT}")
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.fixture(scope="session")
def seen(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Trace everything on both sides."""
    out = tmp_path_factory.mktemp("all")
    with collecting() as collector:
        more = collector.environ(OTEL_TRACES_SAMPLER="always_on")
        with watched_mock(**more) as url:
            done = drive(url, trace, out, "--seed", "5", **more)
            assert done.returncode in (0, 4), done.stderr
    return Seen(latest(out), collector)


@pytest.fixture(scope="session")
def half(trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Trace half of the same run, from two workers, with the older names."""
    out = tmp_path_factory.mktemp("half")
    with collecting() as collector:
        more = collector.environ(
            OTEL_TRACES_SAMPLER_ARG="0.5", LOADSTONE_GENAI_SEMCONV="1.41"
        )
        with watched_mock(**more) as url:
            done = drive(url, trace, out, "--seed", "5", "--processes", "2", **more)
            assert done.returncode in (0, 4), done.stderr
            run = latest(out)
            # Locust's master does not wait for its workers to end.
            wait_for(
                lambda: (
                    sum(p.count for p in old_durations(collector)) == ROWS
                    and sum(s.kind == "client" for s in collector.spans) == sampled(run)
                )
            )
    return Seen(run, collector)
