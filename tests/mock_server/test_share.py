"""How VMs and limits are divided over workers, and that the engines stay the same."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.cli.engine_options import build_live
from loadstone.cli.serve import Place, prepare
from loadstone.cli.serve_workers import serve_workers
from loadstone.engine.core import Engine
from loadstone.engine.sequence import Sequence
from loadstone.errors import UsageError
from mock_server.share import Share

ENGINES: dict[str, Any] = {
    "preset": "azure-nd-gb300-v6", "model": "llama-2-70b", "router": "least_loaded",
    "policy": "vllm", "scheduling_policy": "fcfs", "seed": 11,
}  # fmt: skip


@given(vms=st.integers(1, 80), limit=st.integers(0, 5000), data=st.data())
def test_parts_are_the_whole(vms: int, limit: int, data: st.DataObject) -> None:
    """VMs in a row, none twice and none left out; the parts of a limit add up."""
    workers = data.draw(st.integers(1, vms))
    shares = Share.all_of(vms, workers)
    numbers = [
        n for share in shares for n in range(share.first_vm, share.first_vm + share.vms)
    ]
    assert numbers == list(range(vms))
    sizes = [share.vms for share in shares]
    assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1
    assert sum(share.of(limit) for share in shares) == limit
    for share in shares:
        assert abs(share.of(limit) - limit * share.vms / vms) < 1


@pytest.mark.parametrize(("vms", "workers"), [(1, 2), (3, 4), (0, 1), (1, 0)])
def test_a_worker_without_a_vm_is_refused(vms: int, workers: int) -> None:
    """Rather than a process that serves nothing."""
    with pytest.raises(UsageError):
        Share(worker=0, workers=workers, of_vms=vms)


def times(engine: Engine) -> list[float]:
    """Return when the steps of a request end on an engine: its own random numbers."""
    engine.submit(Sequence("x", 100, 8), 0.0)
    ends = []
    while engine.due is not None:
        step = engine.step()
        if step is not None:
            ends.append(step.end_s)
    return ends


def test_the_same_seed_gives_the_same_engines_however_divided() -> None:
    """Each worker's are those that one process has in their place."""
    _, whole, _ = build_live(vms=3, **ENGINES)
    divided = [
        build_live(vms=3, share=share, **ENGINES) for share in Share.all_of(3, 2)
    ]
    assert [vms for _, _, vms in divided] == [1, 2]
    assert [fleet.first for _, fleet, _ in divided] == [0, 4]
    engines = [engine for _, fleet, _ in divided for engine in fleet.engines]
    assert [times(engine) for engine in engines] == [
        times(engine) for engine in whole.engines
    ]
    assert len({tuple(times(engine)) for engine in engines}) == len(engines)


OPTIONS: dict[str, Any] = ENGINES | {
    "vms": 2, "host": "127.0.0.1", "port": 0, "uds": None, "slowdown": 1.0,
    "stream_interval": 1, "expect_connections": 1, "slow_reader_limit": 1000,
    "max_waiting": 10, "names": (), "api_key_file": None, "ssl_certfile": None,
    "ssl_keyfile": None, "grace": "1s", "tenants": None, "faults": None,
    "allow_fault_header": False, "admin_key_file": None, "allowed_origins": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "options", "said"),
    [
        (3, {}, "2 VMs cannot be divided over 3 workers"),
        (2, {"uds": "/mock.sock"}, "not on a Unix socket"),
        (2, {"max_waiting": 1}, "--max-waiting 1"),
        (2, {"port": 65_534}, "above port 65534"),
        (2, {"api_key_file": "absent.txt"}, "absent.txt"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    workers: int, options: dict[str, Any], said: str
) -> None:
    """Before any process is started."""
    with pytest.raises(UsageError, match=said):
        serve_workers(workers, OPTIONS | options)


def rack_of(tmp_path: Path, rpm: int) -> dict[str, Any]:
    """Write a table with one tenant, and return the options of a rack that has it."""
    (tmp_path / "key").write_text("secret")
    table = tmp_path / "tenants.toml"
    table.write_text(
        f"[[tenant]]\nname = 'a'\nkey_file = 'key'\nrpm = {rpm}\ntpm = 3000\n"
    )
    return OPTIONS | {"vms": 3, "tenants": table}


def test_the_limits_of_a_tenant_are_divided_too(tmp_path: Path) -> None:
    """As the VMs are; together the workers let through what the table says."""
    options = rack_of(tmp_path, rpm=60)
    shares = Share.all_of(3, 2)
    tenants = [
        prepare(
            place=Place(share=share, port=0, control=tmp_path, announce=print),
            **options,
        ).config.tenants[0]
        for share in shares
    ]
    assert [tenant.rpm for tenant in tenants] == pytest.approx([20, 40])
    assert [tenant.tpm for tenant in tenants] == pytest.approx([1000, 2000])


def test_less_than_a_request_a_minute_cannot_be_divided(tmp_path: Path) -> None:
    """A worker's part of two over three VMs would never let one through."""
    with pytest.raises(UsageError, match="2 requests a minute of tenant a"):
        serve_workers(2, rack_of(tmp_path, rpm=2))
