"""The parts of the exporter by themselves: trees, spans, metrics, queue, threads."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from collector import collecting, dead_url
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind, StatusCode

from loadgen.hooks import Begun
from loadstone.buckets import BucketArray, bucket_of
from loadstone.genai import Attr, OtelClient, OtelServer
from loadstone.telemetry.otel.client import ClientTotals, LoadTelemetry, attributes_of
from loadstone.telemetry.otel.export import CLOSE_S, OneLine, Telemetry
from loadstone.telemetry.otel.metrics import Span, metrics_data
from loadstone.telemetry.otel.push import BoundedQueue, Pusher
from loadstone.telemetry.otel.settings import Settings
from loadstone.telemetry.otel.spans import SpanMaker
from loadstone.telemetry.otel.trees import Stage, Tree, client_tree
from loadstone.traffic.plan import Plan
from loadstone.traffic.record import Outcome, RequestRecord, TokensSource

TRACE = "4bf92f3577b34da600f067aa0ba902b7"
BOTH = Settings(signals=frozenset(("traces", "metrics")), ratio=1.0)
TARGET = ((Attr.REQUEST_MODEL, "m"),)
PATIENCE_S = 20


def row(**changes: Any) -> RequestRecord:
    """Return a row that waited 0.2 s, dialled 0.1 s, and had its tokens by 2 s."""
    usual: dict[str, Any] = {
        "id": "000001", "scenario": "chat", "intended_s": 0.5, "sent_s": 0.8,
        "connect_s": 0.1, "first_s": 1.0, "last_s": 2.0, "end_s": 2.01,
        "outcome": Outcome.OK, "input_tokens": 7, "output_tokens": 3, "events": 3,
        "first_event_tokens": 1, "tokens_source": TokensSource.USAGE,
        "finish_reason": "stop", "status": 200, "trace_id": TRACE,
        "icl": ((bucket_of(0.5), 2),),
    }  # fmt: skip
    return RequestRecord(**(usual | changes))


def failed(error: str = "reset", **changes: Any) -> RequestRecord:
    """Return a row of a request without an answer."""
    return row(
        outcome=Outcome.FAILED, error=error, first_s=None, last_s=None, icl=(),
        input_tokens=0, output_tokens=0, tokens_source=TokensSource.NONE,
        finish_reason=None, status=None, **changes,
    )  # fmt: skip


def tree(**changes: Any) -> Tree:
    """Return the tree of a row."""
    return client_tree(row(**changes), origin=1e9, common={}, root=1)


# -------------------------------------------------------------------- trees


def names(made: Tree) -> list[str]:
    """Return what stages there are."""
    return [stage.name for stage in made.stages]


def test_stages_follow_one_another() -> None:
    """From the intended time to the last token without a hole."""
    made = tree()
    assert names(made) == ["queue", "connect", "time_to_first_token", "decode"]
    edges = [(s.begin, s.end) for s in made.stages]
    assert edges == [
        (0.5, pytest.approx(0.7)),
        (pytest.approx(0.7), 0.8),
        (0.8, 1.0),
        (1.0, 2.0),
    ]


def test_a_request_that_did_not_wait_has_no_queue() -> None:
    """Nor one on a kept connection a connect."""
    assert names(tree(intended_s=0.6995)) == [
        "connect", "time_to_first_token", "decode"
    ]  # fmt: skip
    assert names(tree(sent_s=0.5, connect_s=0.0)) == ["time_to_first_token", "decode"]


def test_a_dial_never_begins_before_its_request() -> None:
    """A closed loop intends a request when it is asked for: stages stay inside."""
    made = tree(intended_s=0.75)
    assert made.stages[0] == Stage("connect", 0.75, 0.8)


def test_a_broken_request_has_the_stages_it_came_to() -> None:
    """And says what broke it, whatever the convention wants besides."""
    made = client_tree(failed(), origin=0.0, common={}, root=1)
    assert names(made) == ["queue", "connect"]
    assert made.error == "reset"
    assert made.attributes[Attr.FINISH_REASONS] == ("error",)
    assert Attr.INPUT_TOKENS not in made.attributes
    assert Attr.STATUS not in made.attributes


def test_an_outcome_without_an_error_is_its_own_error() -> None:
    """What was ended by us has a type, too."""
    cut = row(outcome=Outcome.CANCELLED)
    assert client_tree(cut, origin=0.0, common={}, root=1).error == "cancelled"


def test_nanoseconds_are_exact() -> None:
    """An origin in this century leaves a float no nanoseconds."""
    made = Tree(
        name="x", kind="client", origin=1_795_439_868.25, begin=0, end=1, attributes={}
    )
    assert made.nanos(0.000000001) - made.nanos(0.0) == 1
    assert made.nanos(0.0) == 1_795_439_868_250_000_000


# -------------------------------------------------------------------- spans


def test_the_ids_are_those_of_the_tree() -> None:
    """The root's went out in `traceparent`; those of its stages are drawn."""
    maker = SpanMaker(Resource({}))
    made = client_tree(row(), origin=1e9, common={"a": "b"}, root=0xF067AA0BA902B7)
    *stages, root = maker.make(made)
    assert root.context.trace_id == int(TRACE, 16)
    assert root.context.span_id == 0xF067AA0BA902B7
    assert root.parent is None
    assert (root.kind, root.name) == (SpanKind.CLIENT, "chat ")
    for stage in stages:
        assert stage.context.trace_id == root.context.trace_id
        assert stage.parent == root.context
        assert stage.kind is SpanKind.INTERNAL
    ids = {span.context.span_id for span in (*stages, root)}
    assert len(ids) == 5
    assert (root.attributes or {})["a"] == "b"


def test_a_server_span_is_a_child_of_a_span_elsewhere() -> None:
    """The caller's id is its parent, and its own is drawn."""
    made = Tree(
        name="x", kind="server", origin=0.0, begin=1.0, end=2.0, attributes={},
        trace_id=7, parent_id=9, error="429",
    )  # fmt: skip
    (root,) = SpanMaker(Resource({})).make(made)
    assert root.parent is not None
    assert (root.parent.span_id, root.parent.is_remote) == (9, True)
    assert root.context.trace_id == 7
    assert root.context.span_id not in (0, 9)
    assert root.status.status_code is StatusCode.ERROR
    assert (root.attributes or {})[Attr.ERROR] == "429"


def test_a_server_span_without_a_caller_begins_a_trace() -> None:
    """Each one its own."""
    maker = SpanMaker(Resource({}))
    bare = Tree(name="x", kind="server", origin=0.0, begin=1.0, end=2.0, attributes={})
    (one,), (two,) = maker.make(bare), maker.make(bare)
    assert one.parent is two.parent is None
    assert 0 != one.context.trace_id != two.context.trace_id != 0


# -------------------------------------------------------------------- metrics


def exported(totals: ClientTotals, convention: Any = "0.1.0") -> dict[str, Any]:
    """Return what would be exported, points by metric name."""
    data = metrics_data(
        totals.read(), resource=Resource({}), convention=convention, span=Span(1, 2)
    )
    if data is None:
        return {}
    (scope,) = data.resource_metrics[0].scope_metrics
    return {m.name: list(m.data.data_points) for m in scope.metrics}


def test_nothing_to_tell_is_not_told() -> None:
    """A process that sent nothing exports nothing."""
    assert exported(ClientTotals(BOTH)) == {}


def test_a_histogram_is_its_bucket_array() -> None:
    """Bounds, counts and sum as they are; no least and no largest value."""
    array = BucketArray((1.0, 2.0))
    for value in (0.5, 1.5, 1.5, 9.0):
        array.add(value)
    data = metrics_data(
        [(OtelServer.DURATION, [({"a": "b"}, array)])],
        resource=Resource({}), convention="0.1.0", span=Span(1, 2),
    )  # fmt: skip
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    array.add(0.1)
    assert (point.bucket_counts, point.count, point.sum) == ((1, 2, 1), 4, 12.5)
    assert (point.explicit_bounds, point.attributes) == ((1.0, 2.0), {"a": "b"})
    assert (point.start_time_unix_nano, point.time_unix_nano) == (1, 2)


def test_durations_tell_failures_apart_and_nothing_else_does() -> None:
    """Warm-up and failures count, each error by itself."""
    totals = ClientTotals(BOTH)
    for one in (row(), row(warmup=True), failed(), failed("http_500"), failed()):
        totals.add(one, TARGET)
    points = exported(totals)
    durations = points[OtelClient.DURATION.now]
    assert {p.attributes.get(Attr.ERROR): p.count for p in durations} == {
        None: 2, "reset": 2, "http_500": 1
    }  # fmt: skip
    (first,) = points[OtelClient.FIRST_CHUNK.now]
    assert (first.count, first.sum) == (2, 1.0)
    (gaps,) = points[OtelClient.PER_CHUNK.now]
    assert gaps.count == 4
    assert gaps.sum == pytest.approx(2.0, rel=0.01)
    usage = {p.attributes[Attr.MODALITY]: p.value for p in points[OtelClient.INPUT.now]}
    assert usage == {"text": 14, "unknown": 0}


def test_the_older_convention_has_one_metric_of_tokens() -> None:
    """Input and output are told apart by an attribute, and there are no counters."""
    totals = ClientTotals(Settings(signals=BOTH.signals, convention="1.41"))
    totals.add(row(), TARGET)
    points = exported(totals, "1.41")
    assert set(points) == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.operation.time_per_output_chunk",
        "gen_ai.client.token.usage",
    }
    usage = points["gen_ai.client.token.usage"]
    assert {p.attributes[Attr.TOKEN_TYPE]: p.sum for p in usage} == {
        "input": 7, "output": 3
    }  # fmt: skip


def test_slices_and_targets_are_series_of_their_own() -> None:
    """Scenario, tenant, stage, and whom it was sent to."""
    totals = ClientTotals(BOTH)
    totals.add(row(), TARGET)
    totals.add(row(tenant="b"), TARGET)
    totals.add(row(stage="embed"), TARGET)
    totals.add(row(), ((Attr.REQUEST_MODEL, "other"),))
    assert len(exported(totals)[OtelClient.FIRST_CHUNK.now]) == 4
    assert repr(totals) == "<ClientTotals of 4 requests in 4 slices>"


@pytest.mark.parametrize(
    ("host", "provider", "address", "port"),
    [
        ("https://api.openai.com/v1", "openai", "api.openai.com", 443),
        ("https://me.openai.azure.com", "azure.ai.openai", "me.openai.azure.com", 443),
        ("https://m.models.ai.azure.com", "azure.ai.inference",
         "m.models.ai.azure.com", 443),
        ("http://127.0.0.1:8000", "openai_compatible", "127.0.0.1", 8000),
        ("unix:/run/x.sock", "openai_compatible", "/run/x.sock", None),
    ],
)  # fmt: skip
def test_the_target_is_named_by_its_address(
    host: str, provider: str, address: str, port: int | None
) -> None:
    """A known host is its provider; a socket has no port."""
    told = attributes_of(Plan(hosts=(host,), model="m"), host)
    assert told[Attr.PROVIDER] == provider
    assert told[Attr.ADDRESS] == address
    assert told.get(Attr.PORT) == port


# -------------------------------------------------------------------- queue, threads


def test_a_full_queue_drops_and_counts() -> None:
    """What came first stays."""
    queue: BoundedQueue[int] = BoundedQueue(3)
    for item in range(5):
        queue.put(item)
    assert repr(queue) == "<BoundedQueue 3/3 dropped=2>"
    assert (queue.take(2), queue.take(9), len(queue)) == ([0, 1], [2], 0)


def test_a_pusher_pushes_and_pushes_a_last_time() -> None:
    """Every period, and once more when it is to finish."""
    pushed = threading.Semaphore(0)
    pusher = Pusher("t", lambda _: pushed.release(), period_s=0.001)
    assert pushed.acquire(timeout=PATIENCE_S)
    assert pushed.acquire(timeout=PATIENCE_S)
    pusher.finish(time.monotonic() + PATIENCE_S)
    assert pusher.join(time.monotonic() + PATIENCE_S)
    assert repr(pusher) == "<Pusher t ended every 0.001s>"
    slow = Pusher("s", lambda _: pushed.release(), period_s=3600)
    while pushed.acquire(blocking=False):
        pass
    slow.finish(time.monotonic() + PATIENCE_S)
    assert slow.join(time.monotonic() + PATIENCE_S)
    assert pushed.acquire(blocking=False)
    assert not pushed.acquire(blocking=False)


def test_a_pusher_is_told_when_time_is_up() -> None:
    """A last push may stop half-way."""
    told: list[bool] = []
    pusher = Pusher("t", lambda late: told.append(late()), period_s=3600)
    pusher.finish(time.monotonic() - 1)
    assert pusher.join(time.monotonic() + PATIENCE_S)
    assert told == [True]


# -------------------------------------------------------------------- the whole


@pytest.fixture
def telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Telemetry[RequestRecord]]:
    """Give a maker of exporters to a URL."""

    def make(url: str) -> Telemetry[RequestRecord]:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        return Telemetry(
            BOTH,
            service="test",
            read=lambda: (),
            tree_of=lambda r: client_tree(r, origin=1e9, common={}, root=1),
        )

    return make


def test_everything_put_arrives_by_the_close(telemetry: Any) -> None:
    """In batches; the fate of each request is a metric."""
    with collecting() as collector:
        exporter = telemetry(collector.url)
        for _ in range(50):
            exporter.put(row())
        exporter.close()
        exporter.close()
    assert len(collector.spans) == 50 * 5
    assert collector.paths.count("/v1/traces") >= 4
    assert "exported=50" in repr(exporter)


def test_a_refusing_collector_is_complained_of_once(
    telemetry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Each batch is counted as failed, one is told of."""
    with collecting(status=401) as collector:
        exporter = telemetry(collector.url)
        for _ in range(50):
            exporter.put(row())
        exporter.close()
    (said,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "401" in said.getMessage()
    assert exporter.fates == {"failed": 50}


def test_closing_on_a_dead_collector_is_bounded(
    telemetry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the exporter would try for ten seconds."""
    exporter = telemetry(dead_url())
    for _ in range(5000):
        exporter.put(row())
    began = time.monotonic()
    exporter.close()
    assert time.monotonic() - began < CLOSE_S + 0.2
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
    assert exporter.queue.dropped > 0


def test_one_line_takes_over_a_logger() -> None:
    """Nobody else hears what it says, and a new process may say it again."""
    handler = OneLine()
    handler.take_over("loadstone.test.theirs")
    theirs = logging.getLogger("loadstone.test.theirs")
    assert theirs.handlers == [handler]
    assert not theirs.propagate


def test_an_observer_of_runs_exports_only_what_is_sampled() -> None:
    """Every request is in the metrics; a row without a trace has no spans."""
    observer = LoadTelemetry(Settings(signals=frozenset()))
    observer.run_began(Begun("r", Plan(hosts=("http://x",), model="m"), 1e9))
    observer.request_ended(row())
    observer.request_ended(row(trace_id=None))
    assert repr(observer.totals) == "<ClientTotals of 2 requests in 1 slices>"
    observer.close()
