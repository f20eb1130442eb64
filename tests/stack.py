"""The files of the stack as data: Compose reads docker-compose.yml for us; and YAML."""

import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE_FILE = ROOT / "docker-compose.yml"

Json = dict[str, Any]


@cache
def compose_command() -> tuple[str, ...]:
    """Return how Docker Compose is called here; it reads files without an engine.

    Without it a test is skipped on a developer's machine; CI has no excuse.
    """
    unpacked = str(ROOT / ".tools/compose/docker-compose")
    for command in ((unpacked,), ("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) and _major(command) >= 2:
            return command
    told = "no Docker Compose 2 or newer here: `make tools-compose` brings it"
    if os.environ.get("CI"):
        pytest.fail(told)
    pytest.skip(told)


def _major(command: tuple[str, ...]) -> int:
    done = subprocess.run(
        [*command, "version"], capture_output=True, text=True, check=False
    )
    # Docker's own builds write v2.40.3, Debian's 2.26.1-4.
    found = re.search(r"version v?(\d+)\.", done.stdout)
    return int(found[1]) if found else 0


def compose(
    *args: str, cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run Compose with nothing in its environment but the PATH and `environ`."""
    return subprocess.run(
        [*compose_command(), *args],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def stack(*args: str, **environ: str) -> Json:
    """Return the stack as Compose understands it: defaults and merges resolved."""
    done = compose(*args, "config", "--format", "json", **environ)
    assert done.returncode == 0, done.stderr
    read: Json = json.loads(done.stdout)
    return read


def documents(path: Path) -> list[Json]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def settings(path: Path) -> dict[str, str]:
    """Return what a file of NAME=VALUE lines sets."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and line[0] != "#")
    return {name: value for name, _, value in pairs}


def limits(service: Mapping[str, Any]) -> Json:
    """Return a service's resource limits."""
    found: Json = service.get("deploy", {}).get("resources", {}).get("limits", {})
    return found


def fetch(url: str, **form: Any) -> tuple[int, bytes]:
    """Get a URL, or post a form to it; return status and body."""
    parts = urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.request(
            "POST" if form else "GET",
            f"{parts.path or '/'}?{parts.query}",
            urlencode(form) or None,
            {"content-type": "application/x-www-form-urlencoded"} if form else {},
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
