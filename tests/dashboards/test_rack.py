"""The rack's dashboard, asked of a real Prometheus: idle, under load, and by place."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from panels import PanelQuery, chosen, filled, panel_queries
from processes import mock_server, start
from prometheus_process import Prometheus, finite, prometheus
from scraped import GPU, PUBLISHED_PER_GPU, Driven, driven, fleet_of

from dashboards.rack import NO_CACHE
from loadstone.catalog.boards import load_board
from loadstone.catalog.presets import load_preset
from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence
from loadstone.telemetry.gpus import GpuFacts
from loadstone.telemetry.places import Topology

VMS = 19
"""A rack of 18 VMs, and the first VM of the next one."""
MACHINE = load_preset("azure-nd-gb300-v6", "llama-2-70b")
FACTS = GpuFacts.of(MACHINE, load_board(MACHINE.gpu))
RACK = [query for query in panel_queries() if query.board == "rack.json"]
NEED_TRAFFIC = (
    "Energy per output token (A)",
    "Energy per output token over time (A)",
    "Prefix hits (A)",
    "Prefix hits by GPU (A)",
    "VMs (I)",
)
"""What divides by the work done: without traffic it is empty, and the panel says so."""
COLUMNS = dict(
    zip(
        "ABCDEFGHI",
        (
            "running", "waiting", "kv", "preempted", "tokens", "per_gpu", "watts",
            "share", "hits",
        ),
        strict=True,
    )
)  # fmt: skip
"""What the queries of the table are, by their refs."""


@dataclass(frozen=True)
class Watched:
    """A Prometheus, an instant it has seen, and what the variables say."""

    prometheus: Prometheus
    at: float
    values: dict[str, str]

    def with_(self, **values: str) -> "Watched":
        """Choose other values of the variables."""
        return replace(self, values=self.values | values)

    def ask(self, query: PanelQuery) -> list[dict[str, Any]]:
        """Ask a query, with the variables filled in."""
        return self.prometheus.instant(filled(query.expr, self.values), self.at)

    def value(self, expr: str) -> float:
        """Return the one value of a query of one's own."""
        return self.prometheus.value(expr, self.at)

    def by(
        self, panel: str, *labels: str, ref: str = "A"
    ) -> dict[tuple[str, ...], float]:
        """Return the values of one query, by some of its labels."""
        (query,) = (q for q in RACK if (q.panel, q.ref) == (panel, ref))
        found = self.ask(query)
        values = {
            tuple(one["metric"][name] for name in labels): float(one["value"][1])
            for one in found
        }
        assert len(values) == len(found), "these labels do not tell them apart"
        return values

    def tile(self, panel: str, ref: str = "A") -> float:
        """Return the one value of a query."""
        (value,) = self.by(panel, ref=ref).values()
        return value

    def table(self) -> dict[str, dict[str, float]]:
        """Return the table of VMs: its columns, by VM."""
        rows: dict[str, dict[str, float]] = {}
        for ref, name in COLUMNS.items():
            for (vm,), value in self.by("VMs", "vm", ref=ref).items():
                rows.setdefault(vm, {})[name] = value
        return rows


@dataclass(frozen=True)
class Rack:
    """A mock of two racks, before and amid a run."""

    idle: Watched
    busy: Watched


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """Watch a real mock of 19 VMs, first idle and then under load."""
    folder = tmp_path_factory.mktemp("rack")
    with prometheus(folder) as server, mock_server("--vms", str(VMS)) as url:
        server.scrape(mock=f"{url}/metrics")
        server.wait_for('count_over_time(loadstone_engine_gpus{engine="0"}[5s]) > 2')
        idle = time.time()
        process = start(
            "run", "azure-chat", "--rate", "50", "--duration", "6s", "--drain", "1s",
            "--host", url, "--out", str(folder),
        )  # fmt: skip
        try:
            server.wait_for("sum(vllm:generation_tokens_total) > 0", 60.0)
            said, _ = process.communicate(timeout=90)
        finally:
            process.kill()
        found = server.range("sum(vllm:num_requests_running)", idle, time.time())
        loads = [(float(n), at) for at, n in found[0]["values"]]
        assert max(loads)[0] > 4 * VMS, said
        watched = Watched(server, idle, chosen())
        yield Rack(watched, replace(watched, at=max(loads)[1]))


@pytest.fixture
def busy(rack: Rack) -> Watched:
    """Give the rack under load."""
    return rack.busy


def test_an_idle_rack_shows_nought_and_not_nothing(rack: Rack) -> None:
    """Rates and levels are 0; only what divides by the work is empty."""
    idle = rack.idle
    assert {str(q) for q in RACK if not finite(idle.ask(q))} == {
        f"rack.json: {query}" for query in NEED_TRAFFIC
    }
    tiles = (
        "Output tokens/s", "Output tokens/s/GPU", "Share of the published", "Running",
        "Waiting", "KV cache, fullest", "Preemptions/s",
    )  # fmt: skip
    assert {name: idle.tile(name) for name in tiles} == dict.fromkeys(tiles, 0.0)
    assert idle.tile("GPUs") == VMS * 4
    idle_w = VMS * (4 * 200.0 + FACTS.rest_w_per_vm)
    assert idle.tile("Power") == pytest.approx(idle_w)


def test_under_load_every_panel_shows_something(busy: Watched) -> None:
    """No query is excused, with all of it chosen or one engine of one VM."""
    one = busy.with_(rack="mock-rack-1", vm="mock-vm-18", engine="73", server="mock")
    for choice in (busy, one):
        empty = {str(q): q.expr for q in RACK if not finite(choice.ask(q))}
        assert empty == {}


def test_places_lead_from_rack_to_engine(busy: Watched) -> None:
    """A rack has its VMs, a VM its GPUs, and what is chosen alone is shown."""
    assert set(busy.table()) == {f"mock-vm-{i}" for i in range(VMS)}
    second = busy.with_(rack="mock-rack-1")
    assert set(second.table()) == {"mock-vm-18"}
    assert second.tile("GPUs") == 4
    for panel, gpu in (("Batch by GPU", "gpus"), ("Power by GPU", "gpu")):
        found = set(second.by(panel, "vm", gpu))
        assert found == {("mock-vm-18", str(i)) for i in range(4)}
    one = busy.with_(engine="5").by("Batch by GPU", "vm", "gpus")
    assert set(one) == {("mock-vm-1", "1")}


def test_the_table_adds_up_to_the_counters(busy: Watched) -> None:
    """VMs' tokens/s are the counter's rate, per GPU and of the published likewise."""
    rows = busy.table().values()
    counted = busy.value("sum(rate(vllm:generation_tokens_total[5s]))")
    assert counted > 0
    tokens = [row["tokens"] for row in rows]
    assert sum(tokens) == pytest.approx(counted)
    assert busy.tile("Output tokens/s") == pytest.approx(counted)
    running = busy.value("sum(vllm:num_requests_running)")
    assert sum(row["running"] for row in rows) == running == busy.tile("Running")
    published = MACHINE.facts["published_tokens_per_gpu"].value
    for row in rows:
        assert row["per_gpu"] == pytest.approx(row["tokens"] / 4)
        assert row["share"] == pytest.approx(row["per_gpu"] / published)
    assert busy.tile("Published tokens/s/GPU") == published
    share = busy.tile("Share of the published")
    assert share == pytest.approx(counted / (4 * VMS) / published)
    spread = [busy.tile("Spread over VMs", ref=ref) for ref in "ABC"]
    assert spread == pytest.approx([min(tokens), counted / VMS, max(tokens)])
    assert busy.by("Spread over VMs", "figure", "basis", ref="D") == {
        (figure, "Offline, unverified"): MACHINE.facts[f"published_vm_{figure}"].value
        for figure in ("min", "mean", "max")
    }


def test_power_is_the_gpus_and_the_rest(busy: Watched) -> None:
    """As dcgm-exporter tells it, and a fixed share of the rack; energy likewise."""
    gpus = busy.value("sum(DCGM_FI_DEV_POWER_USAGE)")
    assert gpus > VMS * 4 * 200.0
    rest = VMS * FACTS.rest_w_per_vm
    assert busy.tile("Power by part", ref="A") == pytest.approx(gpus)
    assert busy.tile("Power by part", ref="B") == pytest.approx(rest)
    assert sum(busy.by("Power by GPU", "vm", "gpu").values()) == pytest.approx(gpus)
    assert busy.tile("Power") == pytest.approx(gpus + rest)
    watts = sum(row["watts"] for row in busy.table().values())
    assert watts == pytest.approx(gpus + rest)
    joules = busy.value("sum(rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[5s])) / 1e3")
    # By the server's clock; Prometheus dates its scrapes by its own.
    per_token = (joules + rest) / busy.tile("Output tokens/s")
    assert busy.tile("Energy per output token") == pytest.approx(per_token, rel=0.02)
    published = busy.tile("Energy per output token over time", ref="B")
    assert published == pytest.approx(0.1235, abs=5e-5)


def test_the_page_has_the_catalogs_figures() -> None:
    """What is written of the published run, and of power, is what is computed."""
    document = Path(__file__).parents[2] / "docs" / "dashboards.md"
    text = " ".join(document.read_text().split())
    facts = [
        fact for name, fact in MACHINE.facts.items() if name.startswith("published")
    ]
    assert len(facts) == 4
    assert all(f"{fact.value:,.0f}" in text for fact in facts)
    idle_w = 18 * (4 * FACTS.power.idle_w + FACTS.rest_w_per_vm)
    assert f"136 kW, an idle one {idle_w / 1e3:.1f} kW" in text


# ------------------------------------------------------------------ against the engines

SMALL = {"max_num_seqs": 4, "kv_blocks": 24, "max_model_len": 300}
FACTS_OF_FOUR = replace(
    GPU, topology=Topology(gpus_per_engine=2, gpus_per_vm=4, vms_per_rack=1)
)
"""Engines of two GPUs, two to a VM, a VM to a rack."""


async def overfill(server: Driven) -> None:
    """Serve prompts of two prefixes, with more answers than there is room for."""
    await asyncio.gather(
        *(
            server.submit(
                Sequence(f"r{i}", 40, 80, prefix_ids=(10 * (i % 2), 10 * (i % 2) + 1))
            )
            for i in range(64)
        )
    )


def freeze(server: Driven) -> None:
    """Leave requests in every batch and queue, and let no time pass."""
    for i in range(30):
        server.submit(Sequence(f"f{i}", 20 + i, 200))
    for engine in server.driver.fleet.engines:
        engine.step()
    server.driver.stop()


def compare(watched: Watched, engines: list[Engine]) -> None:
    """Hold the panels to the engines."""
    at = [(f"mock-vm-{i // 2}", ("0,1", "2,3")[i % 2]) for i in range(4)]
    mock = watched.with_(server="mock")
    for panel, figures in {
        "Batch by GPU": [e.running for e in engines],
        "Queue by GPU": [e.waiting for e in engines],
        "KV cache by GPU": [e.kv_usage for e in engines],
        "Prefix hits by GPU": [
            e.prefix_cache_hits / e.prefix_cache_queries for e in engines
        ],
    }.items():
        assert all(figures), panel
        shown = mock.by(panel, "vm", "gpus")
        assert shown == pytest.approx(dict(zip(at, figures, strict=True))), panel
    hits = sum(e.prefix_cache_hits for e in engines)
    share = hits / sum(e.prefix_cache_queries for e in engines)
    assert mock.tile("Prefix hits") == pytest.approx(share)
    assert mock.tile("KV cache, fullest") == max(e.kv_usage for e in engines)
    # Counters of one scrape are all extrapolated alike, so their ratios are exact.
    tokens = sum(e.generated_tokens for e in engines)
    preemptions = sum(e.preemptions for e in engines)
    per_s = mock.tile("Output tokens/s") / tokens
    assert preemptions > 0
    assert mock.tile("Preemptions/s") == pytest.approx(per_s * preemptions)
    assert mock.by("Output tokens/s by GPU", "vm", "gpus") == pytest.approx(
        {
            place: per_s * e.generated_tokens / 2
            for place, e in zip(at, engines, strict=True)
        }
    )
    assert mock.tile("GPUs") == 8
    per_gpu = per_s * tokens / 8
    assert mock.tile("Share of the published") == pytest.approx(
        per_gpu / PUBLISHED_PER_GPU
    )
    second = mock.with_(rack="mock-rack-1")
    assert second.by("VMs", "vm") == {
        ("mock-vm-1",): sum(e.running for e in engines[2:])
    }
    assert second.tile("GPUs") == 4
    # Where there is no prefix cache, a value stands for the words that say so.
    trt = watched.with_(server="trt")
    assert {trt.tile("Prefix hits")} == {value for value, _ in NO_CACHE}
    assert trt.tile("Output tokens/s") > 0


def test_figures_are_the_engines_own(tmp_path: Path) -> None:
    """Hits, preemptions, batches, queues and KV of each engine, as it says itself."""

    async def scenario(server: Prometheus) -> None:
        async with (
            driven(fleet_of(4, **SMALL), FACTS_OF_FOUR) as mock,
            driven(fleet_of(policy="trtllm_max_util")) as trt,
        ):
            server.scrape(mock=f"{mock.url}/metrics", trt=f"{trt.url}/metrics")
            wait = server.wait_for
            await asyncio.to_thread(wait, "count(loadstone_engine_gpus) == 5")
            await overfill(mock)
            await trt.submit(Sequence("t", 40, 3))
            freeze(mock)
            engines = mock.driver.fleet.engines
            asked = sum(engine.prefix_cache_queries for engine in engines)
            arrived = f'sum(vllm:prefix_cache_queries_total{{job="mock"}}) == {asked}'
            await asyncio.to_thread(wait, arrived)
            counted = 'vllm:generation_tokens_total{job="trt"} == 3'
            await asyncio.to_thread(wait, counted)
            values = chosen() | {"__rate_interval": "60s"}
            watched = Watched(server, time.time(), values)
            await asyncio.to_thread(compare, watched, engines)

    with prometheus(tmp_path) as server:
        asyncio.run(scenario(server))
