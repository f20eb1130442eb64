"""A small endpoint on loopback with one thing wrong with it: what a check must find."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = ("llama-3.3-70b-instruct", "llama-3.1-8b-instruct", "qwen3-32b")
PER_TOKEN = 5
"""Characters, by this endpoint's tokenizer."""
TEMPLATE = 9


@dataclass
class Quirk:
    """What the endpoint does; as it stands, nothing is wrong with it."""

    key: str | None = None
    """The key it wants; several, separated by blanks, are good one after the other."""
    models: tuple[str, ...] = MODELS
    prefix: str = "/v1"
    status: int = 200
    """Of its answers to questions, with `message`."""
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    usage: bool = True
    stream: bool = True
    buffered: bool = False
    tokens: int | None = None
    """How long its answers are, whatever was asked for."""
    skew_s: float = 0.0
    unknown: tuple[str, ...] = ()
    """Fields that it refuses."""
    closes: bool = False
    broken: str | None = None
    """An error amid the stream."""
    gap_s: float = 0.001
    good_for: int | None = None
    """Requests that a key is good for; then it wants the next one."""
    pages: dict[str, str] = field(default_factory=dict)
    """Pages of metrics by path; `{posts}` in them is how many questions came."""
    posts: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def wanted(self) -> str | None:
        """Return the key that is good now."""
        if self.key is None:
            return None
        keys = self.key.split()
        turn = 0 if self.good_for is None else len(self.posts) // self.good_for
        return keys[min(turn, len(keys) - 1)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    quirk: Quirk

    def do_GET(self) -> None:
        """List the models, if the key is right, and give pages of metrics."""
        page = self.quirk.pages.get(self.path)
        if page is not None:
            self.quirk.keys.append(self.headers.get("authorization", ""))
            text = page.replace("{posts}", str(len(self.quirk.posts)))
            self._head(200, "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())
        elif self.path == f"{self.quirk.prefix}/models":
            if self._let_in():
                data = [{"id": name} for name in self.quirk.models]
                self._json(200, {"data": data})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        """Answer a question, with whatever is wrong."""
        quirk = self.quirk
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != f"{quirk.prefix}/chat/completions":
            self._json(404, {"detail": "Not Found"})
            return
        if not self._let_in():
            return
        quirk.posts.append(body)
        if quirk.closes:
            self.close_connection = True
            return
        refused = next((name for name in quirk.unknown if name in body), None)
        if refused:
            self._error(400, f"Unknown parameter: '{refused}'.")
        elif quirk.status != 200:
            self._error(quirk.status, quirk.message)
        elif body["model"] not in quirk.models:
            self._error(404, f"The model `{body['model']}` does not exist.")
        else:
            self._answer(body)

    def _let_in(self) -> bool:
        wanted = self.quirk.wanted()
        shown = self.headers.get("authorization", "")
        self.quirk.keys.append(shown)
        if wanted is None or shown == f"Bearer {wanted}":
            return True
        self._error(401, f"Incorrect API key provided: {shown}")
        return False

    def _answer(self, body: dict[str, Any]) -> None:
        quirk = self.quirk
        asked = body.get("max_tokens") or body.get("max_completion_tokens") or 16
        n = asked if quirk.tokens is None else quirk.tokens
        chars = sum(len(m["content"]) for m in body["messages"])
        usage = {
            "prompt_tokens": TEMPLATE + round(chars / PER_TOKEN),
            "completion_tokens": n,
        }
        told = {"usage": usage} if quirk.usage else {}
        reason = "length" if n >= asked else "stop"
        if not quirk.stream:
            choice = {"message": {"content": "x" * n}, "finish_reason": reason}
            self._json(200, {"choices": [choice]} | told)
            return
        events = [{"choices": [{"delta": {"content": f" w{i}"}}]} for i in range(n)]
        if quirk.broken is not None:
            events = [*events[:2], {"error": {"message": quirk.broken}}]
        last = {"choices": [{"delta": {}, "finish_reason": reason}]} | told
        lines = [f"data: {json.dumps(e)}\n\n".encode() for e in [*events, last]]
        lines.append(b"data: [DONE]\n\n")
        self._head(200, "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if quirk.buffered:
            time.sleep(quirk.gap_s * n)
            lines = [b"".join(lines)]
        for line in lines:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(quirk.gap_s)
        self.wfile.write(b"0\r\n\r\n")

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message}})

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self._head(status, "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _head(self, status: int, kind: str) -> None:
        self.send_response_only(status)
        self.send_header(
            "Date", formatdate(time.time() + self.quirk.skew_s, usegmt=True)
        )
        self.send_header("Content-Type", kind)
        for name, value in self.quirk.headers.items():
            self.send_header(name, value)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # With the usual 5, connections opened together look open to the client while the
    # kernel has forgotten them: their answers never come.
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that go away, or speak no TLS."""


@contextmanager
def endpoint_with(quirk: Quirk, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve an endpoint with a quirk; yields its URL."""
    handler = type("Handler", (_Handler,), {"quirk": quirk})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        scheme = "https" if tls else "http"
        yield f"{scheme}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
