"""Whatever is sent, the answer is a success or a 4xx with a reason; nothing sticks.

Requests are made up twice: by schemathesis from the server's own description, and by
hypothesis as bytes on the socket. The server runs in a thread of this process, so that
a 500 shows its traceback in the test's log.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from loadstone.wire.openapi import AZURE, describe

Maker = Callable[..., Any]
BODY_LIMIT = 20_000
TOKENS = 60

pytestmark = pytest.mark.timeout(110)
BOUNDED = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Served:
    """A server in a thread."""

    url: str
    port: int
    server: Any
    loop: asyncio.AbstractEventLoop

    def idle(self) -> bool:
        """Say whether nothing is left on any engine, within ten seconds."""

        async def wait() -> bool:
            for _ in range(1000):
                engines = self.server.fleet.engines
                if not any(e.running or e.waiting or e.kv_usage for e in engines):
                    return True
                await asyncio.sleep(0.01)
            return False

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result()


@pytest.fixture
def served(mock: Maker, fleet_of: Maker) -> Iterator[Served]:
    """Give a server that takes small bodies and gives short answers."""
    ready: list[Served] = []
    started, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        fleet = fleet_of(step_ms=0.2, max_model_len=3000)
        async with mock(fleet, length=5, max_body_bytes=BODY_LIMIT) as server:
            loop = asyncio.get_running_loop()
            ready.append(Served(server.url, server.port, server, loop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(10)
    (it,) = ready
    try:
        yield it
        assert it.idle(), "a request still holds its slot"
    finally:
        it.loop.call_soon_threadsafe(stop.set)
        thread.join(20)


def test_the_description_is_well_formed() -> None:
    """OpenAPI 3.1, by the validator of those who wrote it down."""
    validate(describe("1.0"))


def test_the_description_is_served(served: Served) -> None:
    """Every path in it leads somewhere, with the method that it names."""
    answer = send(served, "GET", "/openapi.json")
    document = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert document["paths"].keys() == describe("1.0")["paths"].keys()
    for path, item in document["paths"].items():
        (method,) = item
        told = send(served, method.upper(), path.replace("{deployment}", "llama"))
        assert status(told) in {200, 400, 404}, path
        other = "POST" if method == "get" else "GET"
        if "{" not in path:
            assert status(send(served, other, path)) == 405


def test_requests_made_up_from_the_description(served: Served) -> None:
    """Valid and invalid ones: each reply is one that the description allows."""
    schema = schemathesis.openapi.from_dict(describe("1.0"))
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.startswith(AZURE):
            continue  # the same handlers as under /v1
        # What takes no body cannot be asked wrongly.
        modes = list(schemathesis.GenerationMode)[: 2 if operation.body else 1]
        for mode in modes:

            @given(case=operation.as_strategy(generation_mode=mode))
            @BOUNDED
            def run(case: schemathesis.Case) -> None:
                case.call_and_validate(base_url=served.url, checks=checks, timeout=20)

            run()


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.sampled_from([10**400, -1, 2**63, 1e308, "\ud800", "user", "json_schema"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "function", "name", "parameters",
                 "schema", "format", "json_schema", "effort", "include_usage",
                 "properties", "required", "items", "enum", "minimum", "anyOf", "$ref"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip
TALKS = [{"role": "user", "content": "hi"}]
GOOD = {
    "/v1/chat/completions": {"model": "llama", "messages": TALKS},
    "/v1/completions": {"model": "llama", "prompt": "hi"},
    "/v1/responses": {"model": "llama", "input": "hi"},
    "/v1/embeddings": {"model": "llama", "input": "hi"},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [1]},
}
FIELDS = sorted(
    {
        name
        for path in GOOD
        for name in describe("1")["paths"][path]["post"]["requestBody"]["content"][
            "application/json"
        ]["schema"]["properties"]
    }
)


def test_made_up_fields(served: Served) -> None:
    """Wrong types, absurd numbers, halves of surrogate pairs, schemas of nonsense."""

    @settings(BOUNDED, max_examples=500)
    @given(
        path=st.sampled_from(sorted(GOOD)),
        fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
    )
    def run(path: str, fields: dict[str, Any]) -> None:
        check(served, path, json.dumps(GOOD[path] | fields).encode())

    run()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x00", b"\xff\xfe{}", b"null", b"[" * 9999, b'{"a":' * 3999,
        b'{"model":"llama","messages":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"model":"llama","model":"llama"}', b'{"seed":1e999}', b'{"n":NaN}',
        b'{"max_tokens":' + b"9" * 9999 + b"}", b'{"x":"\\ud800"}',
        b'{"model":"llama","messages":[{"role":"user","content":"\\udfff"}]}',
        b'{"model":"llama","prompt":[' + b"4294967296," * 9 + b"1]}",
        b"{" + b'"a":1,' * 3000 + b'"b":2}', b"x" * (BODY_LIMIT + 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", sorted(GOOD))
def test_bodies_that_are_none(served: Served, path: str, data: bytes) -> None:
    """Empty, binary, bottomless, doubled, endless."""
    assert check(served, path, data) >= 400


def test_raw_bytes_on_the_socket(served: Served) -> None:
    """Not even HTTP, cut short, or wrong about its length: an error or silence."""
    path = "/v1/chat/completions"
    good = request("POST", path, json.dumps(GOOD[path] | {"max_tokens": 2}).encode())

    @settings(BOUNDED, max_examples=120)
    @given(
        cut=st.integers(0, len(good)) | st.just(len(good)),
        at=st.integers(0, len(good)),
        junk=st.binary(max_size=30),
    )
    def run(cut: int, at: int, junk: bytes) -> None:
        data = good[:at] + junk + good[at:]
        answer = exchange(served, data[:cut], patience_s=0.1)
        if answer:
            assert 200 <= status(answer) < 500

    run()
    assert status(exchange(served, good)) == 200


def check(served: Served, path: str, data: bytes) -> int:
    """Send a body; the reply must be a success or an error object with a reason."""
    answer = send(served, "POST", path, data)
    code, body = status(answer), answer.partition(b"\r\n\r\n")[2]
    assert code == 200 or 400 <= code < 500, (path, data[:500], answer[:500])
    if code != 200:
        error = json.loads(body)["error"]
        assert error["message"]
        assert len(body) < 2000
    return code


def send(served: Served, method: str, path: str, data: bytes = b"") -> bytes:
    """Send a request that asks for the connection's end, and read to that."""
    return exchange(served, request(method, path, data))


def request(method: str, path: str, data: bytes) -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def exchange(served: Served, data: bytes, *, patience_s: float = 20.0) -> bytes:
    """Send bytes and read until the server closes, or says nothing for so long."""
    answer = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as sock:
        try:
            sock.sendall(data)
            sock.settimeout(patience_s)
            while part := sock.recv(1 << 16):
                answer += part
        except (ConnectionError, TimeoutError):
            pass  # it was told enough and closed the door, or waits for the rest
    return answer


def status(answer: bytes) -> int:
    """Return the status of a reply."""
    return int(answer.split(b" ", 2)[1])
