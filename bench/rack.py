"""How much of a published rack's Server run one machine holds, mock and Locust on it.

    python bench/rack.py
    python bench/rack.py --vms 6 12 18 --seconds 30
    python bench/rack.py --plain 4000 8000 16000

The first table emulates some of the rack's 18 VMs, each under its eighteenth of the
published load, so that every engine has the batch it has in the whole rack: the share
is held if each pair of mock and Locust says `ok` of itself. The second has long answers
of 16 tokens a write and hardly a request: what is left is tokens. Each process has a
core of its own while there are cores: who wakes another by a packet is else given its
core to share, though the next one idles, for a sixth of the time. CPU time is per 1,000
tokens, from a run's first second to its last, and says what the whole would take; wall
time on a machine that does something else besides says little.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

from loadgen.coordinator import LEAD_S
from loadstone.runs import read_rows
from loadstone.traffic.machine import loads_of
from loadstone.traffic.verdict import VITALS

# MLCommons, MLPerf Inference v6.0, datacenter, closed division, 6.0-0078 (NVIDIA, GB300
# NVL72, Llama-2-70B FP4, Server), 2026-03-26: the whole rack of 72 GPUs.
PUBLISHED_TOK_S: Final = 868_278.0
PUBLISHED_REQ_S: Final = 3_187.3
PUBLISHED_E2E_S: Final = 7.5064
PUBLISHED_INTERVAL: Final = 100
"""Tokens an event of the run's decode workers; its prefill workers had 30."""
RACK_VMS: Final = 18
PLAIN_INTERVAL: Final = 16
PLAIN_TOKENS: Final = 1000
PLAIN_START_S: Final = 5.0
SPARE: Final = 1.75
"""Places in flight for each that is expected: the mock's answers take up to 8.8 s, and
where the places end the rate is not sent. More than needed cost the client: Locust
makes a user for each before the first request."""
TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Pair:
    """What one mock and one Locust made of their part of the load."""

    summary: dict[str, Any]
    events_per_s: float
    client_s: float
    """CPU time of the process that measures; the mock's likewise."""
    mock_s: float

    def lines(self) -> Iterator[str]:
        """Yield its verdict with every reason, and what could have been one."""
        told = self.summary["instrument"]
        yield f"    {told['verdict']}: {'; '.join(told['reasons']) or 'no reason'}"
        late = {
            "TTFT error": told["ttft_error_s"],
            "client's loop": told["loop_lag_s"],
            "client's kernel": told["recv_lag_s"],
            "mock's first tokens": told["mock_lag_s"],
            "sending": self.summary["send_lag_s"],
        }
        yield "      late p50/p99/max ms: " + ", ".join(
            f"{what} {_ms(figures)}" for what, figures in late.items()
        )
        yield (
            f"      longest collection {told['worst_gc_pause_s'] * 1e3:.0f} ms, of the"
            " time: "
            + ", ".join(f"{name} {told[name]:.1%}" for name in VITALS if name in told)
        )


def _ms(figures: dict[str, float | None]) -> str:
    values = (figures.get(name) for name in ("p50", "p99", "max"))
    return "/".join("-" if v is None else f"{v * 1e3:.1f}" for v in values)


@dataclass(frozen=True, slots=True)
class Trial:
    """All pairs of a trial."""

    pairs: list[Pair]

    def total(self, *path: str) -> float:
        """Add a figure of the summaries up; one that is absent counts as 0."""
        total = 0.0
        for pair in self.pairs:
            value: Any = pair.summary
            for name in path:
                value = value[name]
            total += value or 0.0
        return total

    def worst(self, *path: str) -> float:
        """Return the largest of them."""
        return max(Trial([pair]).total(*path) for pair in self.pairs)

    @property
    def ok(self) -> bool:
        """Whether each was measured right, and nothing failed."""
        unanswered = self.total("requests", "sent") - self.total("requests", "ok")
        verdicts = {pair.summary["instrument"]["verdict"] for pair in self.pairs}
        return verdicts == {"ok"} and unanswered == 0

    @property
    def why(self) -> str:
        """Return the verdict and the first reason, if there is one."""
        told = [
            f"{i['verdict']}: {i['reasons'][0]}"
            for pair in self.pairs
            if (i := pair.summary["instrument"])["verdict"] != "ok"
        ]
        return told[0] if told else "ok" if self.ok else "ok, but some were unanswered"

    @property
    def us_per_1k_tokens(self) -> tuple[float, float]:
        """Return the CPU time of clients and of mocks."""
        tokens = max(1.0, self.total("tokens", "output"))
        client = sum(pair.client_s for pair in self.pairs)
        mock = sum(pair.mock_s for pair in self.pairs)
        return client * 1e9 / tokens, mock * 1e9 / tokens

    def line(self) -> str:
        """Return the figures that both tables have."""
        tokens = self.total("throughput", "steady_output_tok_s")
        events = sum(pair.events_per_s for pair in self.pairs)
        flying = sum(
            (p.summary["throughput"]["req_s"] or 0) * (p.summary["e2e_s"]["mean"] or 0)
            for p in self.pairs
        )
        error = self.worst("instrument", "ttft_error_s", "p99") * 1e3
        client, mock = self.us_per_1k_tokens
        return (
            f"{tokens:9,.0f} {flying:9,.0f} {events:9,.0f}"
            f" {tokens / max(events, 1):9.1f} {client:7,.0f} {mock:6,.0f} {error:9.1f}"
            f"  {self.why}"
        )


HEAD: Final = (
    "    tok/s in flight  events/s tok/event  client   mock error p99  verdict\n"
    "                                      CPU us per 1,000 tok  of TTFT, ms"
)


def cpu_s(pid: int) -> float:
    """Return a process's CPU time so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@contextlib.contextmanager
def on_core(index: int) -> Iterator[None]:
    """Start processes on that core alone, counted round those that we may use."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[index % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def mock(python: str, vms: int, interval: int) -> Iterator[tuple[str, int]]:
    """Run the mock on a free port; yields its URL and process id."""
    process = subprocess.Popen(
        [python, "-P", "-m", "loadstone", "serve", "--vms", str(vms), "--port", "0",
         "--stream-interval", str(interval), "--grace", "1s",
         "--max-waiting", "100000"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "listening on " in line:
                break
        else:
            raise SystemExit("the mock did not start:\n" + "".join(said))
        yield said[-1].split()[-1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def run(python: str, parts: list[int], interval: int, load: list[list[str]]) -> Trial:
    """Drive a mock of `parts[i]` VMs with `load[i]`, all pairs at once."""
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(tempfile.TemporaryDirectory(prefix="rack-"))
        mocks, clients = [], []
        for i, vms in enumerate(parts):
            with on_core(2 * i):
                mocks.append(stack.enter_context(mock(python, vms, interval)))
        before = [cpu_s(pid) for _, pid in mocks]
        for i, (url, _) in enumerate(mocks):
            command = [sys.executable, "-m", "loadstone", "run", "mlperf", "--json",
                       "--host", url, "--out", f"{out}/{i}", *load[i]]  # fmt: skip
            with on_core(2 * i + 1):
                clients.append(
                    subprocess.Popen(
                        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        text=True,
                    )
                )  # fmt: skip
        pairs = []
        for i, client in enumerate(clients):
            told, said = client.communicate()
            summary = json.loads(told or "{}")
            if "instrument" not in summary:
                raise SystemExit(f"the load generator failed:\n{said}")
            # The watch begins half a second before t0.
            watched = summary["makespan_s"] + LEAD_S
            rows = read_rows(Path(out) / str(i) / "latest")
            pairs.append(
                Pair(
                    summary=summary,
                    events_per_s=loads_of(rows)[0].events_per_s,
                    client_s=summary["instrument"]["cpu_share"] * watched,
                    mock_s=cpu_s(mocks[i][1]) - before[i],
                )
            )
        return Trial(pairs)


def pairs_for(streams: float, asked: int | None) -> int:
    """Return how many processes of each kind the limit on descriptors asks for."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return asked or ceil(SPARE * streams / most)


def split(whole: int, parts: int) -> list[int]:
    """Spread a number as evenly as can be."""
    return [whole // parts + (i < whole % parts) for i in range(parts)]


def server_run(arguments: argparse.Namespace) -> None:
    """Print the shares of the published run, smallest first, until one is not held."""
    print(
        f"published Server run: {PUBLISHED_TOK_S:,.0f} tok/s,"
        f" {PUBLISHED_REQ_S:,.0f} requests/s,"
        f" {PUBLISHED_REQ_S * PUBLISHED_E2E_S:,.0f} in flight;"
        f" here {arguments.interval} tokens an event"
    )
    print(f"share VMs pairs  req/s {HEAD}")
    best: tuple[float, float] | None = None
    for vms in arguments.vms:
        share = vms / RACK_VMS
        flying = share * PUBLISHED_REQ_S * PUBLISHED_E2E_S
        parts = split(vms, min(vms, pairs_for(flying, arguments.pairs)))
        warmup = 2 * PUBLISHED_E2E_S
        cap = ceil(SPARE * flying / len(parts))
        load = [
            ["--rate", f"{part / RACK_VMS * PUBLISHED_REQ_S:.3f}",
             "--users", str(cap), "--warmup", f"{warmup}s",
             "--duration", f"{warmup + arguments.seconds}s"]
            for part in parts
        ]  # fmt: skip
        trial = run(arguments.mock, parts, arguments.interval, load)
        sent = trial.total("throughput", "req_s")
        print(
            f"{share:5.2f} {vms:3d} {len(parts):5d} {sent:6.0f} {trial.line()}",
            flush=True,
        )
        explain(trial)
        whole = [us * PUBLISHED_TOK_S / 1e9 for us in trial.us_per_1k_tokens]
        if trial.ok:
            best = share, trial.total("throughput", "steady_output_tok_s")
        elif not arguments.go_on:
            break
    print(
        f"by the last one's CPU time the whole run takes {whole[0]:.1f} cores of Locust"
        f" and {whole[1]:.1f} of the mock"
    )
    if best is None:
        print(f"no share was held for {arguments.seconds:g} s with verdict ok")
    else:
        print(
            f"held for {arguments.seconds:g} s with verdict ok: {best[0]:.2f} of the"
            f" run, {best[1]:,.0f} tok/s"
        )


def explain(trial: Trial) -> None:
    """Print what each pair said of itself."""
    for pair in trial.pairs:
        for line in pair.lines():
            print(line, flush=True)


def plain(arguments: argparse.Namespace) -> None:
    """Print tokens/s of long answers, 16 tokens a write, at growing numbers of them."""
    print(f"\nplain tokens: answers of {PLAIN_TOKENS}, {PLAIN_INTERVAL} tokens a write")
    print(f"streams pairs {HEAD}")
    most = most_ok = 0.0
    for streams in arguments.plain:
        parts = split(RACK_VMS, pairs_for(streams, arguments.pairs))
        with tempfile.TemporaryDirectory(prefix="rack-") as folder:
            load = []
            for i, share in enumerate(split(streams, len(parts))):
                trace = Path(folder) / f"{i}.jsonl"
                line = '{"timestamp": %.3f, "input_length": 8, "output_length": %d}\n'
                trace.write_text(
                    "".join(
                        line % (j / share * PLAIN_START_S * 1e3, PLAIN_TOKENS)
                        for j in range(share)
                    )
                )
                load.append(
                    ["--trace", str(trace), "--users", str(share),
                     "--duration", f"{PLAIN_START_S}s", "--drain", "120s"]
                )  # fmt: skip
            trial = run(arguments.mock, parts, PLAIN_INTERVAL, load)
        print(f"{streams:7,d} {len(parts):5d} {trial.line()}", flush=True)
        explain(trial)
        tokens = trial.total("throughput", "steady_output_tok_s")
        most, most_ok = max(most, tokens), max(most_ok, tokens * trial.ok)
    print(f"most plain tokens/s: {most_ok:,.0f} with verdict ok, {most:,.0f} without")


def main() -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vms", type=int, nargs="*", default=[1, 2, 4, 6, 9, 12, 18])
    parser.add_argument("--plain", type=int, nargs="*", default=[2000, 4000, 8000])
    parser.add_argument("--seconds", type=float, default=30.0, help="that it is held")
    parser.add_argument("--interval", type=int, default=PUBLISHED_INTERVAL)
    parser.add_argument("--pairs", type=int, help="of mock and Locust processes")
    parser.add_argument("--go-on", action="store_true", help="after one is not held")
    parser.add_argument(
        "--mock", default=sys.executable, metavar="PYTHON",
        help="the interpreter whose loadstone serves, to compare two versions",
    )  # fmt: skip
    arguments = parser.parse_args()
    if arguments.vms:
        server_run(arguments)
    if arguments.plain:
        plain(arguments)


if __name__ == "__main__":
    main()
