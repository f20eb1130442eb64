"""Spans of real runs against the real mock, as a collector sees them."""

from collections import Counter
from itertools import pairwise

import pytest
from traced_runs import (
    LOADGEN,
    MOCK,
    MODEL,
    MS,
    OUTPUT,
    ROWS,
    STAGES,
    Seen,
    old_durations,
)

from loadgen.tracing import Traces


def test_every_request_is_one_trace_of_both_sides(seen: Seen) -> None:
    """The row's trace; the server's span is the child of the client's."""
    rows = {row["trace_id"]: row for row in seen.run.rows}
    clients, servers = seen.roots(LOADGEN), seen.roots(MOCK)
    assert len(rows) == ROWS
    assert rows.keys() == clients.keys() == servers.keys()
    for trace_id, client in clients.items():
        assert client.parent_id == ""
        assert servers[trace_id].parent_id == client.span_id
    assert len({s.span_id for s in seen.collector.spans}) == len(seen.collector.spans)


def test_spans_have_the_conventions_names_and_kinds(seen: Seen) -> None:
    """`chat MODEL` on both sides; what was refused has no model of its own."""
    assert {s.name for s in seen.roots(LOADGEN).values()} == {f"chat {MODEL}"}
    assert Counter(s.name for s in seen.roots(MOCK).values()) == {
        f"chat {MODEL}": ROWS - 1,
        "chat _OTHER": 1,
    }
    for service, names in STAGES.items():
        stages = {s.name for s in seen.spans(service) if s.kind == "internal"}
        assert stages <= set(names)
        assert stages >= set(names) - {"queue", "connect"}


def test_a_request_span_is_what_the_row_says(seen: Seen) -> None:
    """It lasts from the intended time to the end, and starts when the row does."""
    rows = {row["trace_id"]: row for row in seen.run.rows}
    clients = seen.roots(LOADGEN)
    origins = []
    for trace_id, client in clients.items():
        row = rows[trace_id]
        intended = row.get("intended_s", 0.0)
        lasted = row["end_s"] - intended
        assert client.end - client.begin == pytest.approx(lasted * 1e9, abs=2_000)
        origins.append(client.begin - intended * 1e9)
    assert max(origins) - min(origins) <= 2_000


def test_stages_lie_in_their_request_one_after_the_other(seen: Seen) -> None:
    """What they leave out is the dispatcher's millisecond and the stream's closing."""
    for service in (LOADGEN, MOCK):
        for root in seen.roots(service).values():
            stages = seen.stages(root)
            if root.failed:
                assert not stages or service == LOADGEN
                continue
            assert [s.name for s in stages] == [
                n for n in STAGES[service] if n in {s.name for s in stages}
            ]
            for before, after in pairwise(stages):
                assert abs(before.end - after.begin) <= 2_000
            assert all(root.holds(stage) for stage in stages)
            rest = root.end - root.begin - sum(s.end - s.begin for s in stages)
            assert 0 <= rest <= 500 * MS


def test_stages_are_the_rows_own_figures(seen: Seen) -> None:
    """TTFT and decode time are those of the row."""
    clients = seen.roots(LOADGEN)
    for row in seen.run.rows:
        if row["outcome"] != "ok":
            continue
        stages = {s.name: s for s in seen.stages(clients[row["trace_id"]])}
        ttft, decode = stages["time_to_first_token"], stages["decode"]
        wanted = (row["first_s"] - row["sent_s"], row["last_s"] - row["first_s"])
        for span, seconds in zip((ttft, decode), wanted, strict=True):
            assert span.end - span.begin == pytest.approx(seconds * 1e9, abs=3_000)


def test_the_server_served_while_the_client_waited(seen: Seen) -> None:
    """Two clocks of one machine agree to the millisecond."""
    servers = seen.roots(MOCK)
    for trace_id, client in seen.roots(LOADGEN).items():
        server = servers[trace_id]
        assert client.begin - MS <= server.begin <= server.end <= client.end + MS


def test_attributes_tell_what_was_asked_and_answered(seen: Seen) -> None:
    """By the names of the conventions, and ours for scenario, tenant and stage."""
    row = next(r for r in seen.run.rows if r["outcome"] == "ok")
    host, _, port = seen.run.summary["host"].removeprefix("http://").partition(":")
    client = seen.roots(LOADGEN)[row["trace_id"]].attributes
    assert client == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai_compatible",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": OUTPUT,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.response.time_to_first_chunk": pytest.approx(
            row["first_s"] - row.get("intended_s", 0.0), abs=2e-6
        ),
        "gen_ai.usage.input_tokens": row["input_tokens"],
        "gen_ai.usage.output_tokens": OUTPUT,
        "server.address": host,
        "server.port": int(port),
        "http.response.status_code": 200,
        "loadstone.run": seen.run.path.name,
        "loadstone.request": row["id"],
        "loadstone.scenario": "chat",
        "loadstone.tenant": "default",
        "loadstone.stage": "generate",
        "loadstone.outcome": "ok",
        "loadstone.warmup": False,
    }
    server = seen.roots(MOCK)[row["trace_id"]].attributes
    assert server.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert server == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "loadstone_mock",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": OUTPUT,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": row["input_tokens"],
        "gen_ai.usage.output_tokens": OUTPUT,
        "http.response.status_code": 200,
        "loadstone.engine": row["truth"]["engine"],
        "loadstone.preemptions": 0,
        "loadstone.slowdown": 1.0,
    }


def test_a_refused_request_is_an_error_on_both_sides(seen: Seen) -> None:
    """With the client's code there, and the status here."""
    (row,) = [r for r in seen.run.rows if r["outcome"] != "ok"]
    client = seen.roots(LOADGEN)[row["trace_id"]]
    server = seen.roots(MOCK)[row["trace_id"]]
    assert client.failed
    assert server.failed
    assert client.attributes["error.type"] == row["error"] == "http_400"
    assert client.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert server.attributes["error.type"] == "400"
    failed = {s.span_id for s in seen.collector.spans if s.failed}
    assert failed == {client.span_id, server.span_id}


# -------------------------------------------------------------------- sampling


def test_half_of_the_requests_are_the_same_half_each_time(half: Seen) -> None:
    """The seed says which; the others are in the metrics and nowhere else."""
    expected = {i for i in range(ROWS) if Traces(5, run="", ratio=0.5).of(i).sampled}
    assert 0 < len(expected) < ROWS
    rows = [r for r in half.run.rows if "trace_id" in r]
    assert {int(r["id"]) for r in rows} == expected
    ids = {r["trace_id"] for r in rows}
    assert half.roots(LOADGEN).keys() == half.roots(MOCK).keys() == ids


def test_another_run_of_the_seed_has_other_traces(seen: Seen, half: Seen) -> None:
    """A collector that keeps both does not mix them up."""
    halves = [
        {r["trace_id"][cut] for r in run.run.rows if "trace_id" in r}
        for cut in (slice(16), slice(16, 32))
        for run in (seen, half)
    ]
    assert not halves[0] & halves[1]
    assert halves[3] < halves[2]


def test_each_worker_is_an_instance(half: Seen) -> None:
    """Its spans and its metrics are its own; the master exports nothing."""
    spans = {s.instance for s in half.spans(LOADGEN)}
    points = {
        p.instance for p in half.collector.points.values() if p.service == LOADGEN
    }
    assert len(points) == 2
    assert spans <= points
    assert sum(p.count for p in old_durations(half.collector)) == ROWS
