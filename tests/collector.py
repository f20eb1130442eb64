"""A collector on loopback: takes OTLP over HTTP and keeps what it was told, decoded."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

KINDS = {1: "internal", 2: "server", 3: "client"}
_KINDS_OF_POINTS = ("sum", "histogram", "gauge")


@dataclass(frozen=True)
class Span:
    """A span as it came; ids in hex, times in nanoseconds since the epoch."""

    service: str
    instance: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    begin: int
    end: int
    attributes: dict[str, Any]
    failed: bool

    def holds(self, other: "Span") -> bool:
        """Whether the other lies within this one."""
        return self.begin <= other.begin <= other.end <= self.end


@dataclass(frozen=True)
class Point:
    """One series of a metric, as of its last export."""

    service: str
    instance: str
    name: str
    unit: str
    attributes: dict[str, Any]
    value: float | None
    count: int = 0
    total: float = 0.0
    counts: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()
    monotonic: bool = False
    cumulative: bool = False


@dataclass
class Collector:
    """What was received so far."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    points: dict[Any, Point] = field(default_factory=dict)

    def environ(self, **more: str) -> dict[str, str]:
        """Return the variables that send everything here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url} | more

    def named(
        self, name: str, attribute: str = "", value: str | None = None
    ) -> list[Point]:
        """Return the series of a metric, or those whose attribute has that value."""
        return [
            p
            for p in self.points.values()
            if p.name == name and p.attributes.get(attribute) == value
        ]

    def names(self, prefix: str = "") -> set[str]:
        """Return the names of all metrics that begin so."""
        return {p.name for p in self.points.values() if p.name.startswith(prefix)}

    def take(self, path: str, body: bytes) -> None:
        """Decode one export."""
        self.paths.append(path)
        if path == "/v1/traces":
            self._take_spans(ExportTraceServiceRequest.FromString(body))
        else:
            self._take_metrics(ExportMetricsServiceRequest.FromString(body))

    def _take_spans(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            who = _who(resource.resource)
            for scope in resource.scope_spans:
                assert scope.scope.name == "loadstone"
                self.spans += [_span(who, span) for span in scope.spans]

    def _take_metrics(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            who = _who(resource.resource)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data")
                    assert kind in _KINDS_OF_POINTS
                    for point in getattr(metric, kind).data_points:
                        read = _point(who, metric, kind, point)
                        key = (*who, read.name, str(sorted(read.attributes.items())))
                        self.points[key] = read


def _who(resource: Any) -> tuple[str, str]:
    attributes = _attributes(resource.attributes)
    return attributes["service.name"], attributes["service.instance.id"]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(v) for v in value.array_value.values]
    return getattr(value, kind)


def _span(who: tuple[str, str], span: Any) -> Span:
    return Span(
        *who,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=KINDS[span.kind],
        begin=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        failed=span.status.code == 2,
    )


def _point(who: tuple[str, str], metric: Any, kind: str, point: Any) -> Point:
    data = getattr(metric, kind)
    common = (*who, metric.name, metric.unit, _attributes(point.attributes))
    cumulative = data.aggregation_temporality == 2
    assert 0 < point.start_time_unix_nano < point.time_unix_nano
    if kind == "sum":
        value = getattr(point, point.WhichOneof("value"))
        return Point(*common, value, monotonic=data.is_monotonic, cumulative=cumulative)
    assert not point.HasField("min")
    return Point(
        *common,
        None,
        count=point.count,
        total=point.sum,
        counts=tuple(point.bucket_counts),
        bounds=tuple(point.explicit_bounds),
        cumulative=cumulative,
    )


@contextmanager
def collecting(status: int = 200, *, port: int = 0) -> Iterator[Collector]:
    """Run a collector that answers everything with `status`, on a free port or this."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.headers.append({k.lower(): v for k, v in self.headers.items()})
            collector.take(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}
    )
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def never_answering() -> Iterator[str]:
    """Give the URL of a collector that accepts connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def dead_url() -> str:
    """Return the URL of a port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
