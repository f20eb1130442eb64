"""Another LLM load generator beside ours: LLMeter, from PyPI, in a venv of its own.

It was chosen because it is small for its kind; others install 0.8 to 6 GB. Both clients
are told the same: so many at once, one request after the other, against a server that
knows the truth. Where there is no network the comparison is left out, and that is said.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

PACKAGES = ("llmeter[openai]==0.2.0", "openai<3", "aiobotocore>=2.20", "s3fs>=2025.1")
"""It imports httpx, which only openai below 3 brings; the last two save pip from trying
hundreds of versions of what it needs anyway."""
INSTALL_S = 300
SCRIPT = """
import asyncio, json, sys, time
from llmeter.endpoints import OpenAICompletionStreamEndpoint
from llmeter.runner import Runner
url, clients, tokens, seconds = sys.argv[1:]
endpoint = OpenAICompletionStreamEndpoint(
    "llama-2-70b", api_key="none", base_url=url + "/v1")
payload = endpoint.create_payload("hello", max_tokens=int(tokens))
cpu = time.process_time()
result = asyncio.run(Runner(endpoint).run(
    payload=payload, clients=int(clients), run_duration=float(seconds)))
cpu = time.process_time() - cpu
good = [r for r in result.responses if not r.error]
print("RESULT" + json.dumps({
    "ttft": [r.time_to_first_token for r in good],
    "tpot": [r.time_per_output_token for r in good],
    "cpu_s": cpu, "tokens": sum(r.num_tokens_output or 0 for r in good)}))
"""
MINIMAL = [sys.executable, "-m", "loadstone", "run", "azure-chat", "--users", "1",
           "--duration", "1s", "--drain", "0", "--host"]  # fmt: skip


def compare(
    url: str,
    ours: Callable[[], dict[str, Any]],
    *,
    clients: int,
    tokens: int,
    seconds: float,
) -> Iterator[str]:
    """Yield the lines of a table: both clients, each against its own truth."""
    yield f"\n{clients} clients, {tokens} tokens, TTFT 20 ms, TPOT 5 ms"
    yield (
        "client       TTFT p50/p99 ms   truth p50/p99  TPOT p50 ms  truth"
        "  us/token  start-up s  installed MB"
    )
    truth(url)
    figures = ours()
    known = truth(url)
    start_s = startup(url, [*MINIMAL, url])
    truth(url)
    yield line("loadstone", figures, known, start_s, size_of("loadstone"))
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder))
        if python is None:
            yield "LLMeter is left out: pip could not install it (no network?)"
            return
        command = [str(python), "-c", SCRIPT, url, str(clients), str(tokens)]
        began = time.time()
        done = subprocess.run(
            [*command, str(seconds)], capture_output=True, text=True, check=False
        )
        known = truth(url)
        if "RESULT" not in done.stdout or not known:
            yield f"LLMeter failed: {done.stderr[-300:]}"
            return
        figures = json.loads(done.stdout.rpartition("RESULT")[2])
        start_s = min(received for received, *_ in known) - began
        size = sum(
            f.stat().st_size for f in python.parents[1].rglob("*") if f.is_file()
        )
        yield line("LLMeter", figures, known, start_s, size)


def line(
    name: str,
    figures: dict[str, Any],
    known: Sequence[Sequence[float]],
    start_s: float,
    size: int,
) -> str:
    """Return a line of the table."""
    ttft = [first - received for received, first, _, _ in known]
    tpot = [(last - first) / (n - 1) for _, first, last, n in known if n > 1]
    us = figures["cpu_s"] / max(1, figures["tokens"]) * 1e6
    seen = figures["ttft"]
    return (
        f"{name:10} {_ms(seen, 0.5):8.1f} / {_ms(seen, 0.99):6.1f}"
        f" {_ms(ttft, 0.5):7.1f} / {_ms(ttft, 0.99):5.1f}"
        f" {_ms(figures['tpot'], 0.5):11.2f} {_ms(tpot, 0.5):6.2f} {us:9.1f}"
        f" {start_s:11.1f} {size / 1e6:13.0f}"
    )


def _ms(values: Sequence[float | None], q: float) -> float:
    ranked = sorted(value for value in values if value is not None)
    return ranked[int(q * (len(ranked) - 1))] * 1e3 if ranked else float("nan")


def truth(url: str) -> list[list[float]]:
    """Take what the server knows of the requests since it was last asked."""
    with urllib.request.urlopen(f"{url}/truth") as answer:
        known: list[list[float]] = json.load(answer)
        return known


def startup(url: str, command: list[str]) -> float:
    """Return how long it takes from the command to its first request, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        subprocess.run(
            [*command, "--out", folder], capture_output=True, check=False, timeout=60
        )
    known = truth(url)
    return min(received for received, *_ in known) - began if known else float("nan")


def install(folder: Path) -> Path | None:
    """Make a venv with the peer in it; None if that cannot be done here."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    try:
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *PACKAGES],
            check=True, capture_output=True, timeout=INSTALL_S,
        )  # fmt: skip
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return python


def size_of(name: str) -> int:
    """Return the bytes of an installed distribution and of all that it needs."""
    todo, seen, size = [name], set[str](), 0
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform
        for file in found.files or ():
            path = Path(os.fspath(file.locate()))
            size += path.stat().st_size if path.is_file() else 0
        needs = map(Requirement, found.requires or ())
        todo += [
            r.name for r in needs if not r.marker or r.marker.evaluate({"extra": ""})
        ]
    return size
