"""`loadstone serve --workers`: real processes, some of which are killed under load."""

import json
import os
import signal
import socket
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import gevent
import pytest
from processes import (
    PATIENCE_S,
    alive,
    descendants,
    latest,
    loadstone,
    start,
    wait_for,
)
from scraped import Page

from loadgen.client import Endpoint, Exchange, StreamingClient, Timeouts
from loadstone.vocabulary import TRUTH_HEADER
from loadstone.wire.tokens import prompt_of

CHAT: Final = "/v1/chat/completions"
ADMIN_KEY: Final = "open"
BACK_S: Final = 10.0
"""A restart takes about a second; a busy machine may need some more."""


@dataclass(frozen=True)
class Rack:
    """A supervisor and what it says of its workers."""

    process: subprocess.Popen[str]
    url: str

    @property
    def workers(self) -> list[dict[str, Any]]:
        """How its workers are."""
        found: list[dict[str, Any]] = json.loads(get(f"{self.url}/workers")[1])[
            "workers"
        ]
        return found

    def metrics(self) -> Page:
        """Scrape the supervisor."""
        return scrape(self.url)


def get(url: str) -> tuple[int, str]:
    """Return status and text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=20) as page:
            return page.status, page.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def admin(
    rack: Rack, method: str, body: Any = None, *, key: str = ADMIN_KEY
) -> tuple[int, Any]:
    """Call `/admin/faults` of all workers; returns status and answer."""
    asked = urllib.request.Request(
        f"{rack.url}/admin/faults",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as page:
            return page.status, json.loads(page.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


def scrape(url: str) -> Page:
    """Read the metrics that a URL has."""
    status, text = get(f"{url}/metrics")
    assert status == 200
    return Page(text, "text/plain; version=0.0.4")


def listening(*args: str) -> tuple[subprocess.Popen[str], str]:
    """Start `loadstone serve` with these options; returns it and its URL."""
    process = start("serve", *args)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("listening on "):
            return process, line.split()[-1]
    raise AssertionError(f"it ended with {process.wait()}")


def ask(client: StreamingClient, tokens: int, number: int = 0) -> Exchange:
    """Have an answer of so many tokens streamed."""
    body = {
        "model": "llama-2-70b",
        "messages": [{"role": "user", "content": prompt_of(20, number)}],
        "stream": True, "max_tokens": tokens, "ignore_eos": True,
    }  # fmt: skip
    return client.send(
        json.dumps(body).encode(), path=CHAT, headers={TRUTH_HEADER: "1"}, stream=True
    )


def client_of(url: str) -> StreamingClient:
    """Make a client that does not wait for ever."""
    return StreamingClient(
        Endpoint.parse(url), timeouts=Timeouts(first_byte=30, idle=30, total=60)
    )


def engine_of(exchange: Exchange) -> int:
    """Return the number of the engine that answered."""
    assert exchange.error is None, exchange
    assert exchange.reply is not None
    assert exchange.reply.truth is not None
    return exchange.reply.truth.engine


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that nobody has.

    They are below those that the system gives to clients, of which any may be taken.
    """
    rng = Random(os.getpid())
    while True:
        first = rng.randrange(20_000, 30_000)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        return first


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """Give two workers with a VM and with two, eight engines in the latter."""
    folder = tmp_path_factory.mktemp("rack")
    (folder / "admin").write_text(ADMIN_KEY)
    process, url = listening(
        "--port", "0", "--vms", "3", "--workers", "2", "--grace", "5s",
        "--router", "round_robin", "--admin-key-file", str(folder / "admin"),
    )  # fmt: skip
    yield Rack(process, url)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_every_worker_has_its_own_part(running: Rack) -> None:
    """VMs and engines are numbered through, on the wire as in the metrics."""
    workers = running.workers
    assert [(w["first_vm"], w["vms"], w["state"]) for w in workers] == [
        (0, 1, "up"), (1, 2, "up"),
    ]  # fmt: skip
    for worker, own in zip(workers, (set(range(4)), set(range(4, 12))), strict=True):
        client = client_of(worker["url"])
        seen = {engine_of(ask(client, 2, number)) for number in range(16)}
        client.close()
        assert seen == own
    page = running.metrics()
    places = [
        (int(labels["engine"]), labels["vm"])
        for labels, _ in page.samples("loadstone_engine_gpus")
    ]
    assert sorted(places) == [(n, f"mock-vm-{n // 4}") for n in range(12)]
    ((info, _),) = page.samples("loadstone_mock_info")
    assert info["vms"] == "3"
    facts = json.loads(get(f"{running.url}/version")[1])
    assert (facts["vms"], facts["emulated"]) == (3, True)
    assert facts["workers"] == [worker["url"] for worker in workers]
    assert get(f"{running.url}/ready")[0] == get(f"{running.url}/health")[0] == 200


def test_the_merged_page_is_the_sum_of_the_workers_pages(running: Rack) -> None:
    """Of every counter and histogram; what goes on meanwhile lies between two sums."""
    urls = [worker["url"] for worker in running.workers]
    for number, url in enumerate(urls):
        client = client_of(url)
        assert ask(client, 3, number).error is None
        client.close()
    before = [scrape(url) for url in urls]
    merged = running.metrics()
    after = [scrape(url) for url in urls]
    own = {"loadstone_worker_up", "loadstone_worker_restarts"}
    assert set(merged.families) == {*before[0].families, *own}
    compared = 0
    for name, family in merged.families.items():
        if family.type == "gauge" or name in own:
            continue
        low, high = sums(before, name), sums(after, name)
        assert set(low) <= {key(sample) for sample in family.samples} <= set(high)
        for sample in family.samples:
            least, most = low.get(key(sample), 0.0), high[key(sample)]
            # Floats are added in another order than here.
            assert least * (1 - 1e-9) <= sample.value <= most * (1 + 1e-9), sample
            compared += least == most > 0
    assert compared > 100
    waiting = merged.total("vllm:num_requests_waiting")
    assert (waiting, len(list(merged.samples("vllm:num_requests_waiting")))) == (0, 12)


def test_the_merged_page_is_there_in_openmetrics_too(running: Rack) -> None:
    """With its own metrics in the right place: nothing follows the end."""
    accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
    asked = urllib.request.Request(f"{running.url}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        page = Page(answer.read().decode(), answer.headers["Content-Type"])
    assert page.content_type.startswith("application/openmetrics-text")
    assert page.text.count("# EOF") == 1
    assert set(page.families) == set(running.metrics().families)
    assert page.total("loadstone_worker_up") == 2
    assert len(list(page.samples("vllm:kv_cache_usage_perc"))) == 12


def key(sample: Any) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return what makes a sample the same on two pages."""
    return sample.name, frozenset(sample.labels.items())


def sums(pages: list[Page], name: str) -> dict[Any, float]:
    """Add up a metric's samples over pages."""
    total: dict[Any, float] = {}
    for page in pages:
        for sample in page.families[name].samples:
            total[key(sample)] = total.get(key(sample), 0.0) + sample.value
    return total


def test_a_vm_is_lost_by_its_number_in_the_rack(running: Rack) -> None:
    """One call to the supervisor: whoever has the VM loses it, the others nothing."""
    lost = {"kind": "vm_lost", "vm": 2, "requests": "fail"}
    status, answer = admin(running, "POST", lost)
    assert status == 201
    numbers = {told["body"]["id"] for told in answer["workers"]}
    client = client_of(running.workers[1]["url"])
    try:
        assert {engine_of(ask(client, 1, n)) for n in range(16)} == set(range(4, 8))
    finally:
        status, _ = admin(running, "DELETE")
        assert status == 200
    assert {engine_of(ask(client, 1, n)) for n in range(32)} == set(range(4, 12))
    client.close()
    assert len(numbers) == 1
    page = running.metrics()
    assert page.total("loadstone_faults_total", kind="vm_lost") == 1


def test_the_supervisor_passes_on_what_the_workers_say_of_a_key(running: Rack) -> None:
    """It is theirs to judge, and all of them judge alike."""
    status, answer = admin(running, "GET", key="guess")
    assert status == 401
    assert {told["status"] for told in answer["workers"]} == {401}


def test_who_asks_the_supervisor_for_an_answer_is_told_where_it_is(
    running: Rack,
) -> None:
    """421 names the workers."""
    status, text = get(f"{running.url}/v1/models")
    error = json.loads(text)["error"]
    assert (status, error["code"]) == (421, "misdirected_request")
    for worker in running.workers:
        assert worker["url"] in error["message"]


def test_a_run_spreads_its_requests_over_hosts(running: Rack, tmp_path: Path) -> None:
    """In turn; rows say which host, the mock says which engine, the plan has both."""
    urls = [worker["url"] for worker in running.workers]
    ended = loadstone(
        "run", "azure-chat", "--rate", "30", "--duration", "1s", "--drain", "4s",
        "--out", str(tmp_path), "--json",
        *(part for url in urls for part in ("--host", url)),
    )  # fmt: skip
    assert ended.returncode in (0, 4), ended.stderr  # too few samples for a verdict
    run = latest(tmp_path)
    rows = run.rows
    assert {row["outcome"] for row in rows} <= {"ok", "incomplete"}
    answered = set()
    for row in rows:
        host = row.get("host", 0)
        assert host == int(row["id"]) % 2
        if row["outcome"] == "ok":
            assert (row["truth"]["engine"] >= 4) == (host == 1)
            answered.add(host)
    assert answered == {0, 1}
    assert run.summary["host"] == ",".join(urls)
    plan = tomllib.loads((run.path / "plan.toml").read_text())
    assert plan["plan"]["hosts"] == urls
    assert plan["plan"]["vms"] == 3


def test_a_run_against_the_supervisor_is_told_whom_to_drive(
    running: Rack, tmp_path: Path
) -> None:
    """Before anything is sent or written."""
    ended = loadstone(
        "run",
        "azure-chat",
        "--rate",
        "1",
        "--host",
        running.url,
        "--out",
        str(tmp_path),
    )
    assert ended.returncode == 2
    assert "supervisor of 2 workers" in ended.stderr
    for worker in running.workers:
        assert f"--host {worker['url']}" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_worker_killed_under_load(running: Rack) -> None:
    """Its clients get an error at once, the others whole answers; it comes back."""
    first, second = running.workers
    before = running.metrics()
    requests = "http_requests_total"
    clients = [client_of(first["url"]) for _ in range(4)]
    clients += [client_of(second["url"]) for _ in range(4)]
    asked = [gevent.spawn(ask, c, 200, n) for n, c in enumerate(clients)]
    gevent.sleep(1.0)
    assert not any(greenlet.ready() for greenlet in asked)
    os.kill(first["pid"], signal.SIGKILL)
    killed = time.monotonic()
    lost = [greenlet.get(timeout=20) for greenlet in asked[:4]]
    whole = [greenlet.get(timeout=60) for greenlet in asked[4:]]
    for client in clients:
        client.close()
    for exchange in lost:
        assert exchange.status == 200
        assert exchange.error in ("closed_early", "reset", "incomplete")
        assert exchange.end - killed < 2
        assert exchange.reply is not None
        assert 0 < exchange.reply.events < 200
    for exchange in whole:
        assert exchange.error is None
        assert exchange.reply is not None
        assert exchange.reply.output_tokens == 200
        assert engine_of(exchange) >= 4
    wait_for(lambda: running.workers[0]["state"] == "up")
    assert time.monotonic() - killed < BACK_S
    again, untouched = running.workers
    assert (again["url"], again["restarts"]) == (first["url"], 1)
    assert again["pid"] != first["pid"]
    assert untouched == second
    client = client_of(first["url"])
    assert engine_of(ask(client, 2)) < 4
    client.close()
    page = running.metrics()
    assert page.total("loadstone_worker_restarts_total", worker="0") == 1
    assert page.total("loadstone_worker_restarts_total", worker="1") == 0
    # What the dead one had answered before is still in the sum.
    assert (
        page.total(requests, status="2xx") == before.total(requests, status="2xx") + 5
    )


def test_a_signal_drains_all_workers() -> None:
    """Streams end whole within the grace, new requests get 503, exit code 0."""
    process, url = listening(
        "--port", "0", "--vms", "2", "--workers", "2", "--grace", "30s",
    )  # fmt: skip
    try:
        served = Rack(process, url)
        urls = [worker["url"] for worker in served.workers]
        clients = [client_of(url) for url in urls]
        asked = [gevent.spawn(ask, client, 300) for client in clients]
        gevent.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        for url in urls:
            wait_for(lambda url=url: get(f"{url}/ready")[0] == 503)
            late = client_of(url)
            refused = ask(late, 2)
            late.close()
            assert (refused.status, refused.retry_after_s) == (503, 30)
        for greenlet, client in zip(asked, clients, strict=True):
            exchange = greenlet.get(timeout=60)
            assert exchange.error is None
            assert exchange.reply is not None
            assert exchange.reply.output_tokens == 300
            client.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_no_worker_outlives_its_supervisor() -> None:
    """Not even one that was killed without a chance to say goodbye."""
    process, url = listening(
        "--port", "0", "--vms", "2", "--workers", "2", "--grace", "1s",
    )  # fmt: skip
    pids = [worker["pid"] for worker in Rack(process, url).workers]
    assert set(pids) <= set(descendants(process.pid))
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_a_worker_that_cannot_listen_is_told_and_nothing_is_left() -> None:
    """Its port is somebody's; the other worker ends, too."""
    port = free_ports(3)
    with socket.create_server(("127.0.0.1", port + 2)):
        process = start("serve", "--port", str(port), "--vms", "2", "--workers", "2")
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert f"127.0.0.1:{port + 2} is already in use" in said
    assert "worker 1 ended with exit code 1 before it listened" in said
    assert "Traceback" not in said
    assert said.count("error: ") == 2


def test_more_than_a_rack_in_one_process_behind_one_router() -> None:
    """19 VMs are two racks; round robin reaches every engine of both."""
    process, url = listening("--port", "0", "--vms", "19", "--router", "round_robin")
    try:
        client = client_of(url)
        seen = [engine_of(ask(client, 1, number)) for number in range(76)]
        client.close()
        assert seen == list(range(76))
        racks = {
            labels["vm"]: labels["rack"]
            for labels, _ in scrape(url).samples("loadstone_engine_gpus")
        }
        assert len(racks) == 19
        assert racks["mock-vm-17"] == "mock-rack-0"
        assert racks["mock-vm-18"] == "mock-rack-1"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
