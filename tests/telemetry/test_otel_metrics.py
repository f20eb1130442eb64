"""Metrics of real runs against the real mock, as a collector sees them."""

import pytest
from traced_runs import MODEL, ROWS, Seen

from loadstone.vocabulary import (
    GENAI_DURATION_BOUNDS,
    GENAI_TPOT_BOUNDS,
    GENAI_TTFT_BOUNDS,
)

NEW_CLIENT = {
    "gen_ai.client.inference.duration",
    "gen_ai.client.inference.time_to_first_chunk",
    "gen_ai.client.inference.time_per_output_chunk",
    "gen_ai.client.inference.usage.input_tokens",
    "gen_ai.client.inference.usage.output_tokens",
    "gen_ai.client.inference.operation.input_tokens",
    "gen_ai.client.inference.operation.output_tokens",
}
OLD_CLIENT = {
    "gen_ai.client.operation.duration",
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.client.operation.time_per_output_chunk",
    "gen_ai.client.token.usage",
}
SERVER = {
    "gen_ai.server.request.duration": GENAI_DURATION_BOUNDS,
    "gen_ai.server.time_to_first_token": GENAI_TTFT_BOUNDS,
    "gen_ai.server.time_per_output_token": GENAI_TPOT_BOUNDS,
}


def test_metrics_have_the_names_of_the_chosen_convention(
    seen: Seen, half: Seen
) -> None:
    """The client's differ, the server's do not."""
    assert seen.collector.names("gen_ai.client.") == NEW_CLIENT
    assert half.collector.names("gen_ai.client.") == OLD_CLIENT
    for run in (seen, half):
        assert run.collector.names("gen_ai.server.") == set(SERVER)


def test_bounds_are_the_recommended_ones_or_more(seen: Seen) -> None:
    """A query for a standard bound finds it under either convention."""
    chunks = set(GENAI_DURATION_BOUNDS)
    (per_chunk,) = seen.collector.named("gen_ai.client.inference.time_per_output_chunk")
    assert chunks < set(per_chunk.bounds)
    assert 0.004 in per_chunk.bounds
    for name in ("duration", "time_to_first_chunk"):
        for point in seen.collector.named(f"gen_ai.client.inference.{name}"):
            assert point.bounds == GENAI_DURATION_BOUNDS
    for name, bounds in SERVER.items():
        assert {p.bounds for p in seen.collector.named(name)} == {bounds}
    for point in seen.collector.points.values():
        assert point.cumulative
        assert sum(point.counts) == point.count
        assert not point.bounds or len(point.counts) == len(point.bounds) + 1
        tokens = "token" in point.name and "time" not in point.name
        assert point.unit in (("{token}",) if tokens else ("s", "{request}"))


def test_client_metrics_are_the_rows(seen: Seen) -> None:
    """Counts, sums and tokens, failures told apart by their error."""
    rows, named = seen.run.rows, seen.collector.named
    ok = [r for r in rows if r["outcome"] == "ok"]
    name = "gen_ai.client.inference"
    durations = {p.attributes.get("error.type"): p for p in named(f"{name}.duration")}
    assert {e: p.count for e, p in durations.items()} == {None: len(ok), "http_400": 1}
    lasted = sum(r["end_s"] - r.get("intended_s", 0.0) for r in ok)
    assert durations[None].total == pytest.approx(lasted, abs=1e-3)
    (first,) = named(f"{name}.time_to_first_chunk")
    assert first.count == len(ok)
    waited = sum(r["first_s"] - r.get("intended_s", 0.0) for r in ok)
    assert first.total == pytest.approx(waited, abs=1e-3)
    (gaps,) = named(f"{name}.time_per_output_chunk")
    assert gaps.count == sum(r["events"] - 1 for r in ok)
    for side in ("input", "output"):
        total = sum(r[f"{side}_tokens"] for r in ok)
        usage, modality = f"{name}.usage.{side}_tokens", "gen_ai.token.modality"
        (text,) = named(usage, modality, "text")
        # The request that failed brought no usage, and is there all the same.
        (unknown,) = named(usage, modality, "unknown")
        assert unknown.value == 0
        (each,) = named(f"{name}.operation.{side}_tokens")
        assert (text.value, each.total, each.count) == (total, total, len(ok))
        assert text.monotonic


def test_metrics_say_what_they_are_of(seen: Seen) -> None:
    """Operation, provider, model, server and slice, on every series."""
    for name in NEW_CLIENT:
        for point in seen.collector.named(name):
            common = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai_compatible",
                "gen_ai.request.model": MODEL,
                "server.address": "127.0.0.1",
                "loadstone.scenario": "chat",
                "loadstone.tenant": "default",
                "loadstone.stage": "generate",
            }
            assert common.items() <= point.attributes.items()
    for name in SERVER:
        for point in seen.collector.named(name):
            assert point.attributes["gen_ai.operation.name"] == "chat"
            assert point.attributes["gen_ai.provider.name"] == "loadstone_mock"


def test_server_metrics_are_the_requests_that_came(seen: Seen) -> None:
    """Counted where the server counts them for Prometheus, too."""
    points = seen.collector.named("gen_ai.server.request.duration")
    by_error = {p.attributes.get("error.type"): p for p in points}
    assert {e: p.count for e, p in by_error.items()} == {None: ROWS - 1, "400": 1}
    assert by_error["400"].attributes["gen_ai.request.model"] == "_OTHER"
    for name in ("time_to_first_token", "time_per_output_token"):
        (point,) = seen.collector.named(f"gen_ai.server.{name}")
        assert point.count == ROWS - 1


def test_the_older_convention_tells_tokens_apart_by_type(half: Seen) -> None:
    """One histogram, summed over both workers."""
    ok = [r for r in half.run.rows if r["outcome"] == "ok"]
    points = half.collector.named("gen_ai.client.token.usage")
    for side in ("input", "output"):
        ours = [p for p in points if p.attributes["gen_ai.token.type"] == side]
        assert sum(p.count for p in ours) == len(ok)
        assert sum(p.total for p in ours) == sum(r[f"{side}_tokens"] for r in ok)
