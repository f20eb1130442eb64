"""What `/metrics` says of prefixes, places, power, and of what was published."""

import asyncio
from dataclasses import replace
from typing import Any, Final

import pytest
from scraped import Page, driven, fleet_of, running

from loadstone.catalog.boards import load_board
from loadstone.catalog.presets import load_preset
from loadstone.engine.sequence import Sequence
from loadstone.telemetry.gpus import GpuFacts, Gpus
from loadstone.telemetry.server import About
from loadstone.vocabulary import Server

pytestmark = pytest.mark.timeout(30)

PREFIX: Final = (1, 2, 3, 4)
PREFIXED: Final = (
    # prompt tokens, ids of its whole blocks of 16, and what is cached of it
    (70, PREFIX, 0),
    (70, PREFIX, 64),
    (64, PREFIX, 48),  # the last block of a full prompt is computed again
    (40, (9, 10), 0),
    (70, (), 0),
)
CACHED: Final = sum(cached for *_, cached in PREFIXED)
PROMPTS: Final = sum(prompt for prompt, *_ in PREFIXED)


def prefixed(**engine: Any) -> Page:
    """Serve the prompts above one after the other; scrape, but for refused ids."""

    async def scenario() -> Page:
        async with driven(fleet_of(**engine)) as server:
            ids = engine.get("policy", "vllm") == "vllm"
            for i, (prompt, blocks, _) in enumerate(PREFIXED):
                sequence = Sequence(f"r{i}", prompt, 3, prefix_ids=blocks * ids)
                await server.submit(sequence)
            return await server.scrape()

    return asyncio.run(scenario())


def test_prefix_hits_are_the_engines() -> None:
    """Tokens asked for and found; what was found was not computed."""
    page = prefixed()
    assert page.total("vllm:prefix_cache_queries_total") == PROMPTS
    assert page.total("vllm:prefix_cache_hits_total") == CACHED
    assert page.total("vllm:prompt_tokens_total") == PROMPTS
    assert page.total("vllm:prompt_tokens_cached_total") == CACHED
    by_source = "vllm:prompt_tokens_by_source_total"
    assert page.total(by_source, source="local_cache_hit") == CACHED
    assert page.total(by_source, source="local_compute") == PROMPTS - CACHED
    assert page.total(by_source) == PROMPTS
    computed = "vllm:request_prefill_kv_computed_tokens"
    assert page.total(f"{computed}_sum") == PROMPTS - CACHED
    assert page.total(f"{computed}_count") == len(PREFIXED)
    assert page.total("vllm:request_prompt_tokens_sum") == PROMPTS


@pytest.mark.parametrize(
    "engine", [{"prefix_caching": False}, {"policy": "trtllm_max_util"}]
)
def test_without_a_prefix_cache_nothing_is_asked_of_it(engine: dict[str, Any]) -> None:
    """Switched off, or not modelled under the policy: said so, and 0 of 0."""
    page = prefixed(**engine)
    ((cache, _),) = page.samples("vllm:cache_config_info")
    assert cache["enable_prefix_caching"] == "False"
    ((info, _),) = page.samples("loadstone_mock_info")
    assert info["policy"] == engine.get("policy", "vllm")
    for name in ("prefix_cache_queries", "prefix_cache_hits", "prompt_tokens_cached"):
        assert page.total(f"vllm:{name}_total") == 0
    assert page.total("vllm:prompt_tokens_total") == PROMPTS


def test_every_engine_says_where_it_is_and_a_vm_what_it_draws() -> None:
    """Five engines: a VM of four GPUs, and one of one; all of the first rack."""

    async def scenario() -> Page:
        async with running(engines=5) as live:
            return await live.scrape()

    page = asyncio.run(scenario())
    places = [labels for labels, _ in page.samples("loadstone_engine_gpus")]
    assert [(p["engine"], p["vm"], p["gpus"]) for p in places] == [
        ("0", "mock-vm-0", "0"), ("1", "mock-vm-0", "1"), ("2", "mock-vm-0", "2"),
        ("3", "mock-vm-0", "3"), ("4", "mock-vm-1", "0"),
    ]  # fmt: skip
    assert {p["rack"] for p in places} == {"mock-rack-0"}
    for vm, gpus in (("mock-vm-0", 4), ("mock-vm-1", 1)):
        assert page.total("loadstone_engine_gpus", vm=vm) == gpus
        drawn = page.total("loadstone_power_watts", vm=vm, part="gpus")
        assert drawn == gpus * 200.0  # idle
        assert drawn == page.total("DCGM_FI_DEV_POWER_USAGE", Hostname=vm)
        assert page.total("loadstone_power_watts", vm=vm, part="rest") == 2000.0
        energy = page.total("loadstone_energy_joules_total", vm=vm, part="gpus")
        millijoules = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total"
        assert energy * 1e3 == pytest.approx(page.total(millijoules, Hostname=vm))
        rest = page.total("loadstone_energy_joules_total", vm=vm, part="rest")
        assert rest / energy == pytest.approx(2000.0 / (gpus * 200.0))


def test_published_figures_are_the_catalogs() -> None:
    """Per GPU and VM of Azure's rack run, and that nobody verified it."""
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    about = About.of(machine, 18)
    assert (about.model, about.preset, about.vms) == (machine.model, machine.name, 18)
    figures = {labels[:2]: value for labels, value in about.published}
    assert {labels[2] for labels, _ in about.published} == {"Offline, unverified"}
    assert figures == {
        ("gpu", "mean"): pytest.approx(15290.95, rel=1e-6),
        ("vm", "min"): 57599.1, ("vm", "mean"): 61163.8, ("vm", "max"): 62803.9,
    }  # fmt: skip
    ((basis, joules),) = about.published_energy
    assert basis == ("Offline, unverified",)
    assert joules == pytest.approx(0.1235, abs=5e-5)


def test_published_figures_are_slowed_down_with_the_mock() -> None:
    """Ten times slower: a tenth of the tokens/s, ten times the energy, and said so."""
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    about = About.of(machine, 1, slowdown=10.0)
    figures = {labels[:2]: value for labels, value in about.published}
    assert figures["gpu", "mean"] == pytest.approx(1529.095)
    ((basis, joules),) = about.published_energy
    assert basis == ("Offline, unverified, slowed 10 times",)
    assert {labels[2:] for labels, _ in about.published} == {basis}
    assert joules == pytest.approx(1.235, abs=5e-4)


def test_what_nobody_published_is_absent() -> None:
    """No figure is made up for a machine without; its GPUs draw power all the same."""
    machine = load_preset("azure-nd-gb300-v6", "llama-2-70b")
    kept = {
        name: fact for name, fact in machine.facts.items()
        if not name.startswith(("published_", "rack_"))
    }  # fmt: skip
    other = replace(machine, facts=kept)
    about = About.of(other, 1)
    assert (about.published, about.published_energy) == ((), ())
    fleet = fleet_of()
    gpus = Gpus(GpuFacts.of(other, load_board(other.gpu)), fleet.engines)
    readings = {spec.name: list(samples) for spec, samples in gpus.read(1.0)}
    vm = ("mock-rack-0", "mock-vm-0", "gpus")
    assert readings[Server.POWER.name] == [(vm, 200.0)]
    assert readings[Server.ENERGY.name] == [(vm, 200.0)]
