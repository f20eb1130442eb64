"""`.ci/audit`: a known vulnerability fails, and silence is told from a clean bill."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from processes import free_port

AUDIT = Path(__file__).parents[1] / ".ci/audit"
WEAK = {
    "id": "PYSEC-2026-1",
    "modified": "2026-01-01T00:00:00Z",
    "published": "2026-01-01T00:00:00Z",
    "summary": "made up",
    "details": "made up",
    "affected": [
        {
            "package": {"name": "click", "ecosystem": "PyPI"},
            "ranges": [
                {
                    "type": "ECOSYSTEM",
                    "events": [{"introduced": "0"}, {"fixed": "99.1"}],
                }
            ],
        }
    ],
}


@contextmanager
def service(weak: set[str], status: int = 200) -> Iterator[str]:
    """Answer as the OSV service does; packages of these names are vulnerable."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = {"vulns": [WEAK]} if asked["package"]["name"] in weak else {}
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()


def audited(url: str) -> subprocess.CompletedProcess[str]:
    """Audit the locks with the service at `url`."""
    command = [sys.executable, AUDIT, "--vulnerability-service", "osv"]
    return subprocess.run(
        [*command, "--osv-url", url], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("weak", [set(), {"click"}], ids=["clean", "weak"])
def test_a_known_vulnerability_fails(weak: set[str]) -> None:
    """It is named with the release that mends it; without one all is well."""
    with service(weak) as url:
        done = audited(url)
    assert done.returncode == len(weak), done.stderr
    assert f"packages, {len(weak)} vulnerabilities; 0 unknown" in done.stdout
    assert ("PYSEC-2026-1, fixed in 99.1" in done.stdout) is bool(weak)


def test_nobody_answers() -> None:
    """Offline that is said, and is no failure."""
    done = audited(f"http://127.0.0.1:{free_port()}/v1/query")
    assert done.returncode == 0, done.stderr
    assert "NOTHING WAS AUDITED" in done.stdout


def test_a_service_that_fails_is_a_failure() -> None:
    """An error that is not the network's is not taken for a clean bill."""
    with service(set(), status=500) as url:
        done = audited(url)
    assert done.returncode != 0
    assert "packages," not in done.stdout
