"""The stack without its containers, as processes on this machine.

The commands, variables and health checks are those of docker-compose.yml, and a real
Prometheus scrapes by the stack's configuration.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from browser import Browser
from collector import Collector, collecting
from processes import Results, latest
from prometheus_process import Prometheus, prometheus
from stack import DEPLOY, ROOT, Json, stack

BIN: Final = Path(sys.executable).parent
PATIENCE_S: Final = 60
SERVICES: Final = ("mock", "locust-master", "locust-worker")
COLLECTOR: Final = "http://otel-collector:4318"
CHANGED: Final = {
    "LOADSTONE_RATE": "40",
    "LOADSTONE_DURATION": "3s",
    "OTEL_TRACES_SAMPLER_ARG": "1",
}

pytestmark = pytest.mark.timeout(240)


def free_ports(n: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def until(what: str, is_so: Callable[[], Any]) -> Any:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + PATIENCE_S
    while not (answer := is_so()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.1)
    return answer


@dataclass
class Machine:
    """Runs services as processes: names become loopback, paths a folder, ports free."""

    folder: Path
    services: Json
    ports: dict[int, int]
    collector: Collector
    prometheus: Prometheus | None = None

    def here(self, text: str) -> str:
        """Translate a text of the stack to this machine."""
        text = text.replace(COLLECTOR, self.collector.url)
        names = "|".join(map(re.escape, (*SERVICES, "0.0.0.0")))  # noqa: S104 - replaced
        text = re.sub(rf"(^|//)({names})(?=:|/|$)", r"\g<1>127.0.0.1", text)
        text = re.sub(
            rf"\b({'|'.join(map(str, self.ports))})\b",
            lambda found: str(self.ports[int(found[1])]),
            text,
        )
        for inside, outside in (
            (":15B5 ", f":{self.ports[5557]:04X} "),
            ("/opt/loadstone/locustfile.py", f"{ROOT}/loadgen/locustfile.py"),
            ("/loadstone/runs", f"{self.folder}/runs"),
            ("/run/secrets/", f"{self.folder}/secrets/"),
            ("/etc/prometheus/rules", f"{ROOT}/dashboards/provisioning/prometheus"),
        ):
            text = text.replace(inside, outside)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """Return what the service's process is given, and nothing else of ours."""
        given = self.services[name]["environment"]
        told = {k: self.here(v) for k, v in given.items() if v is not None}
        return told | {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            # The stack leaves Locust's own ports where they are.
            "LOCUST_MASTER_BIND_PORT": str(self.ports[5557]),
            "LOCUST_MASTER_NODE_PORT": str(self.ports[5557]),
            "LOCUST_WEB_PORT": str(self.ports[8089]),
        }

    @contextmanager
    def running(self, name: str, number: int) -> Iterator[None]:
        """Run one of a service's processes; it must not end before it is told to."""
        service = self.services[name]
        program, *entry = service.get("entrypoint") or ["loadstone"]
        command = [BIN / program, *entry, *map(self.here, service["command"])]
        log = self.folder / f"{name}-{number}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment(name),
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(PATIENCE_S)

    def is_well(self, name: str) -> bool:
        """Run the service's own health check, once."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        program = sys.executable if test[0] == "python" else test[0]
        command = [program, *map(self.here, test[1:])]
        done = subprocess.run(command, capture_output=True, check=False)
        return done.returncode == 0

    def scraping(self) -> Path:
        """Write Prometheus' configuration, of this machine and five times as often."""
        text = (DEPLOY / "prometheus.yml").read_text()
        targets = re.compile(r"\[([a-z-]+):(\d+)\]")
        text = targets.sub(lambda t: f"[{self.here(f'{t[1]}:{t[2]}')}]", text)
        file = self.folder / "prometheus.yml"
        file.write_text(self.here(text).replace(": 5s", ": 1s"))
        return file

    def asked(self, expression: str) -> float | None:
        """Ask Prometheus for one number."""
        assert self.prometheus
        found = self.prometheus.instant(expression)
        return float(found[0]["value"][1]) if found else None


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Start the stack in its order, each waiting for the other's health."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "secrets").mkdir()
    (folder / "secrets/api_key").write_text("")
    (folder / "secrets/locust_password").write_text("made up\n")
    inside = (8000, 8089, 5557)
    ports = dict(zip(inside, free_ports(len(inside)), strict=True))
    with ExitStack() as running:
        collector = running.enter_context(collecting())
        machine = Machine(folder, stack(**CHANGED)["services"], ports, collector)
        for name in SERVICES:
            assert not machine.is_well(name), f"{name} is well before it starts"
            for number in range(machine.services[name]["deploy"].get("replicas", 1)):
                running.enter_context(machine.running(name, number))
            until(f"{name} is well", lambda name=name: machine.is_well(name))
        machine.prometheus = running.enter_context(
            prometheus(folder, config=machine.scraping())
        )
        yield machine


@pytest.fixture(scope="module")
def run(machine: Machine) -> Results:
    """Start a run as the web UI's button does, and see it end."""
    replicas = machine.services["locust-worker"]["deploy"]["replicas"]

    user = Browser(machine.ports[8089])
    assert user.ask("POST", "/swarm") == 302, "nobody starts load without a login"
    assert user.log_in("made up") == 302

    def workers() -> int:
        assert user.ask("GET", "/stats/requests") == 200
        return len(json.loads(user.body)["workers"])

    until("all workers are there", lambda: workers() == replicas)
    assert user.ask("POST", "/swarm", b"user_count=64&spawn_rate=64") == 200
    assert json.loads(user.body)["success"]
    runs = machine.folder / "runs"
    until("the summary is written", (runs / "latest/summary.json").exists)
    return latest(runs)


def test_a_run_through_master_and_workers(run: Results) -> None:
    """The variables decide the load, and the shared folder has all workers' rows."""
    summary = run.summary
    assert 80 < summary["requests"]["sent"] < 160
    assert summary["requests"]["ok"] == summary["requests"]["sent"]
    assert summary["instrument"]["workers"] == {"expected": 2, "reported": 2}
    assert len(list(run.path.glob("requests.*.jsonl"))) == 2
    assert len(run.rows) == summary["requests"]["sent"]


def test_prometheus_scrapes_both_sides(machine: Machine, run: Results) -> None:
    """Its configuration finds the mock and the load generator, and they agree."""
    sent = run.summary["requests"]["sent"]
    for expression, expected in {
        'up{job="mock"}': 1,
        'up{job="loadgen"}': 1,
        'sum(vllm:request_success_total{job="mock"})': sent,
        'sum(loadstone_requests_total{job="loadgen", outcome="ok"})': sent,
    }.items():
        until(expression, lambda e=expression, n=expected: machine.asked(e) == n)


def test_rules_are_loaded(machine: Machine) -> None:
    """The rules that are mounted into Prometheus are evaluated."""
    assert machine.prometheus
    assert machine.prometheus.get("rules")["groups"]


def test_the_collector_hears_of_both_sides(machine: Machine, run: Results) -> None:
    """Metrics of both; with a sampled share of 1, spans of both for each request."""
    heard = machine.collector

    def spans(service: str) -> int:
        traces = {s.trace_id for s in heard.spans if s.service == service}
        return len(traces)

    sent = run.summary["requests"]["sent"]
    for service in ("loadstone-mock", "loadstone-load"):
        until(f"spans of {service}", lambda s=service: spans(s) == sent)
    until(
        "metrics of both", lambda: len({p.service for p in heard.points.values()}) == 2
    )
    assert set(heard.paths) == {"/v1/traces", "/v1/metrics"}
    assert urlsplit(COLLECTOR).port == 4318
