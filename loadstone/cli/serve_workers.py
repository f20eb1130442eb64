"""`loadstone serve --workers N`: a rack divided over several processes."""

import asyncio
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from mock_server.config import ServerConfig
from mock_server.share import Share
from mock_server.supervise import supervise
from mock_server.worker import Worker

from ..errors import UsageError
from ..telemetry.merge import rack_metrics
from ..units import Seconds
from .serve import prepare

_DIVIDED: Final = {"max_waiting": 1, "expect_connections": 0}
"""Options that are limits of the whole rack, of which each worker gets its part, and
the least that a part can be."""
_LAST_PORT: Final = (1 << 16) - 1
_END_S: Final[Seconds] = 10.0
"""What a worker may take to end, beyond the grace, before it is killed."""


def serve_workers(count: int, options: Mapping[str, Any]) -> None:
    """Serve the rack that the options describe from so many processes.

    Raises `UsageError` for what cannot be divided, `LoadstoneError` when it cannot run.
    """
    if options["uds"] is not None:
        raise UsageError(
            "several workers listen on a port each, not on a Unix socket",
            hint="leave out --uds or --workers",
        )
    rack = prepare(**options)
    shares = Share.all_of(rack.config.vms, count)
    specs = [_spec(share, options) for share in shares]
    for tenant in rack.config.tenants:
        # NOTE: a bucket that holds less than one request never lets one through.
        if tenant.rpm * min(share.fraction for share in shares) < 1:
            raise UsageError(
                f"{tenant.rpm:g} requests a minute of tenant {tenant.name} cannot be"
                f" divided over {count} workers",
                hint="every worker needs at least one of them",
            )
    if options["port"] + count > _LAST_PORT:
        raise UsageError(
            f"{count} workers have no room above port {options['port']}",
            hint="they listen on the ports that follow; choose a lower --port",
        )
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="loadstone-") as folder:
        asyncio.run(_serve(rack.config, shares, specs, Path(folder)))


def _spec(share: Share, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a worker is told; raises `UsageError` where a part would be none."""
    parts = {name: share.of(options[name]) for name in _DIVIDED}
    for name, least in _DIVIDED.items():
        if parts[name] < least:
            raise UsageError(
                f"--{name.replace('_', '-')} {options[name]} cannot be divided over"
                f" {share.workers} workers",
                hint="every worker needs a part of it",
            )
    told = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()
    }
    parts["expect_connections"] = max(1, parts["expect_connections"])
    return {"options": told | parts, "share": asdict(share)}


async def _serve(
    config: ServerConfig,
    shares: Sequence[Share],
    specs: Sequence[Mapping[str, Any]],
    folder: Path,
) -> None:
    workers = [
        Worker(
            share,
            spec,
            port=config.port + 1 + share.worker if config.port else 0,
            control=folder / f"{share.worker}.sock",
            patience_s=config.grace_s + _END_S,
        )
        for share, spec in zip(shares, specs, strict=True)
    ]
    merge = rack_metrics(len(workers))
    await supervise(config, workers, merge=merge, announce=_say)


def _say(line: str) -> None:
    click.echo(line, err=True)
