"""How busy an endpoint says it is: by its gauges, or not at all."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadgen.client import Endpoint
from loadgen.idle import GAUGES, in_flight, read_in_flight

VLLM = """# HELP vllm:num_requests_running Requests in the running batch.
vllm:num_requests_running{engine="0",model_name="a b"} 3.0
vllm:num_requests_running{engine="1",model_name="a b"} 2.0
vllm:num_requests_waiting{engine="0",model_name="a b"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 4.0
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VLLM, 9),
        ("sglang:num_running_reqs 5\nsglang:num_queue_reqs 1 1700000000000\n", 6),
        ("tgi_queue_size 0\n", 0),
        ("process_cpu_seconds_total 3\n", None),
        ('tgi_queue_size many\ntgi_queue_size{a="}"} -1\n', None),
        ("", None),
    ],
)
def test_gauges_are_added_up_over_labels(text: str, expected: int | None) -> None:
    """Running and waiting; names that only begin alike are others."""
    assert read_in_flight(text) == expected


@given(st.text())
@example("\n" + VLLM)
def test_anything_may_come(text: str) -> None:
    """A page without gauges says nothing, and no line says more than it may.

    Hypothesis draws strings of this file too, so `text` may well be a page of gauges.
    """
    named = any(name in text for names in GAUGES for name in names)
    assert named or read_in_flight(f"<html>{text}") is None
    found = read_in_flight(f"tgi_queue_size{text}")
    assert found is None or 0 <= found <= 10**9 * (1 + len(text.splitlines()))


@pytest.fixture
def url() -> Iterator[str]:
    """Serve the metrics above at /metrics of a real server."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = VLLM.encode()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_several_endpoints_are_one(url: str) -> None:
    """And if one does not tell, nothing is known of all."""
    here = Endpoint.parse(url)
    nobody = Endpoint.parse("http://127.0.0.1:9")
    assert in_flight([here]) == 9
    assert in_flight([here, here]) == 18
    assert in_flight([here, nobody]) is None
