"""`loadstone serve`: the mock inference server."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click

from mock_server.capacity import find_capacity
from mock_server.config import MAX_INTERVAL, MIB, ServerConfig
from mock_server.faults import read_fault
from mock_server.serve import serve
from mock_server.share import Share
from mock_server.stats import ServerStats
from mock_server.tenants import DEFAULT, Tenant, read_tenant

from ..catalog.boards import load_board
from ..catalog.presets import Preset
from ..catalog.workloads import load_lengths
from ..engine.fleet import Fleet
from ..errors import UsageError
from ..observers import Observers
from ..telemetry.gpus import GpuFacts, Gpus
from ..telemetry.otel.settings import read_settings
from ..telemetry.server import About, server_metrics
from ..units import parse_duration
from .config_file import config_option
from .engine_options import build_live, engine_options
from .rows_file import read_rows
from .sections import Sectioned


@click.command(
    "serve",
    cls=Sectioned,
    epilog="""\b
Examples:
  loadstone serve --vms 1
  loadstone serve --vms 4 --port 9000 --max-num-seqs 256
  loadstone serve --slowdown 10 --stream-interval 8
  loadstone serve --uds /run/user/1000/mock.sock
  loadstone serve --config mock.toml --port 9000
  loadstone serve --faults faults.toml --admin-key-file admin.txt
  loadstone serve --vms 18 --workers 4 --port 8000    # workers on 8001 to 8004
  loadstone serve --api-key-file key.txt --ssl-certfile cert.pem --ssl-keyfile key.pem

\b
Then, from another terminal:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "llama-2-70b", "stream": true,
      "messages": [{"role": "user", "content": "hello"}]}'""",
)
@config_option
@engine_options
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDR",
    help="address to listen on",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="N",
    help="port to listen on; 0 takes a free one",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="divide the VMs over N processes, on the N ports after --port, which then has"
    " the metrics of all of them",
)
@click.option(
    "--uds",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="listen on a Unix socket instead; its owner alone may connect",
)
@click.option(
    "--slowdown",
    type=float,
    default=1.0,
    show_default=True,
    metavar="X",
    help="everything takes X times as long; /version and the truth say so",
)
@click.option(
    "--stream-interval",
    type=click.IntRange(1, MAX_INTERVAL),
    default=1,
    show_default=True,
    metavar="K",
    help="tokens of a stream's event, after the first token",
)
@click.option(
    "--expect-connections",
    type=click.IntRange(1),
    default=1,
    metavar="N",
    help="do not start where so many connections cannot be had",
)
@click.option(
    "--slow-reader-limit",
    type=click.IntRange(1),
    default=MIB,
    show_default=True,
    metavar="BYTES",
    help="cut off a stream whose client leaves this much unread",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(1),
    default=4096,
    show_default=True,
    metavar="N",
    help="queued requests from which on new ones get 429",
)
@click.option(
    "--served-model-name",
    "names",
    multiple=True,
    metavar="NAME",
    help="what clients call the model; several are aliases (default: its own name)",
)
@click.option("--api-key-file", metavar="FILE", help="ask for the key in this file")
@click.option(
    "--ssl-certfile",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="serve https with this certificate",
)
@click.option(
    "--ssl-keyfile", type=click.Path(path_type=Path), metavar="FILE", help="and its key"
)
@click.option(
    "--tenants",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="TOML table of who may ask, with limits and weights (docs/faults.md)",
)
@click.option(
    "--allowed-origins",
    metavar="JSON",
    help="list of origins whose pages may ask from a browser, such as '[\"*\"]'",
)
@click.option(
    "--faults",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="TOML table of what is to go wrong, and when (docs/faults.md)",
)
@click.option(
    "--allow-fault-header",
    is_flag=True,
    help="let a request ask for a fault of its own, by x-loadstone-fault",
)
@click.option(
    "--admin-key-file",
    metavar="FILE",
    help="let whoever has this key add and remove faults at /admin/faults",
)
@click.option(
    "--grace",
    default="10s",
    show_default=True,
    metavar="TIME",
    help="how long running answers may take once told to stop",
)
def command(*, workers: int, **options: Any) -> None:
    """Serve an OpenAI-compatible API with a GPU rack's token timing, without the GPUs.

    Answers are filler text; their timing is the emulated engine's.
    """
    if workers == 1:
        serve_part(**options)
    else:
        from .serve_workers import serve_workers

        serve_workers(workers, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A worker's place in a rack: its share, where it listens, whom it tells so."""

    share: Share
    port: int
    control: Path
    announce: Callable[[str], None]


class Prepared(NamedTuple):
    """What the options describe: `config` has all that is not an engine's."""

    machine: Preset
    fleet: Fleet
    config: ServerConfig
    rack_vms: int


def prepare(
    *, place: Place | None = None,
    host: str, port: int, uds: Path | None, slowdown: float, stream_interval: int,
    expect_connections: int, slow_reader_limit: int, max_waiting: int,
    names: tuple[str, ...],
    api_key_file: str | None, ssl_certfile: Path | None, ssl_keyfile: Path | None,
    tenants: Path | None, faults: Path | None, allow_fault_header: bool,
    admin_key_file: str | None, allowed_origins: str | None, grace: str, **engine: Any,
) -> Prepared:  # fmt: skip
    """Build what the options describe, or a worker's part; raises `UsageError`."""
    share = place.share if place else None
    machine, fleet, vms = build_live(share=share, slowdown=slowdown, **engine)
    model, *aliases = names or (machine.model,)
    config = ServerConfig(
        share=share,
        control=place.control if place else None,
        model=model,
        aliases=tuple(aliases),
        preset=machine.name,
        vms=vms,
        seed=engine["seed"],
        host=host,
        port=place.port if place else port,
        uds=uds,
        slowdown=slowdown,
        stream_interval=stream_interval,
        expect_connections=expect_connections,
        write_limit_bytes=slow_reader_limit,
        max_waiting=max_waiting,
        api_key=_key(api_key_file),
        tls_cert=ssl_certfile,
        tls_key=ssl_keyfile,
        grace_s=parse_duration(grace),
        tenants=_tenants(tenants, engine["scheduling_policy"], share),
        faults=tuple(read_rows(faults, "fault", read_fault)) if faults else (),
        fault_header=allow_fault_header,
        origins=_origins(allowed_origins),
        admin_key=_key(admin_key_file),
    )
    return Prepared(machine, fleet, config, share.of_vms if share else vms)


def _origins(told: str | None) -> tuple[str, ...]:
    """Read a JSON list of origins, as vLLM takes it; raises `UsageError`."""
    try:
        origins = json.loads(told or "[]")
    except ValueError:
        origins = None
    if not isinstance(origins, list) or not all(isinstance(o, str) for o in origins):
        raise UsageError(
            f"--allowed-origins is a JSON list of texts, not {told}",
            hint="""such as --allowed-origins '["https://chat.example"]'""",
        )
    return tuple(origins)


def serve_part(*, place: Place | None = None, **options: Any) -> None:
    """Serve what the options describe from this process, or a worker's part of it."""
    machine, fleet, config, rack_vms = prepare(place=place, **options)
    slowed = f", {config.slowdown:g} times slowed down" if config.slowdown != 1 else ""
    click.echo(
        f"{config.vms} VM of {machine.name}, {len(fleet.engines)} engines,"
        f" {machine.model} {machine.precision}, emulated{slowed}\n"
        f"{find_capacity(unix=config.uds is not None)}",
        err=True,
    )
    stats = ServerStats(len(fleet.engines), max_model_len=machine.limits.max_model_len)
    facts = GpuFacts.of(machine, load_board(machine.gpu))
    gpus = Gpus(facts, fleet.engines, fleet.first)
    about = About.of(
        machine, rack_vms, name=config.model, slowdown=config.slowdown,
        tenants=tuple(tenant.name for tenant in config.tenants) or (DEFAULT,),
    )  # fmt: skip
    lengths = load_lengths("azure-2023-conversation-output")
    with _observers(config.model, stats) as observers:
        asyncio.run(
            serve(
                config,
                fleet,
                stats=stats,
                lengths=lengths.draw,
                metrics=server_metrics(about, fleet, stats, gpus),
                announce=place.announce if place else _say,
                observers=observers,
                owns_process=True,
            )
        )


def _say(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _observers(model: str, stats: ServerStats) -> Iterator[Observers]:
    """Give those who watch: OpenTelemetry, if the environment asks for it."""
    settings = read_settings(os.environ)
    observers = Observers(_switched_off)
    if settings is None:
        yield observers
        return
    from ..telemetry.otel.server import ServerTelemetry

    telemetry = ServerTelemetry(settings, model=model, stats=stats)
    observers.add(telemetry)
    try:
        yield observers
    finally:
        telemetry.close()


def _switched_off(observer: object, hook: str, failure: Exception) -> None:
    logging.getLogger("loadstone").error(
        "%r failed on %s and is switched off", observer, hook, exc_info=failure
    )


def _tenants(
    path: Path | None, scheduling_policy: str, share: Share | None
) -> tuple[Tenant, ...]:
    """Read the table; key files are sought where it is.

    A worker lets through its part of each tenant's limits.
    """
    if path is None:
        if scheduling_policy == "fair":
            raise UsageError(
                "fair scheduling: there is one tenant",
                hint="say who they are: --tenants FILE",
            )
        return ()

    def read_key(name: str) -> str:
        return _key(str(path.parent / name)) or ""

    tenants = tuple(read_rows(path, "tenant", lambda row: read_tenant(row, read_key)))
    if not tenants:
        raise UsageError(f"{path} has no [[tenant]]")
    if scheduling_policy != "priority" and any(t.priority for t in tenants):
        raise UsageError(
            f"{path}: priorities have no effect",
            hint="use --scheduling-policy priority",
        )
    if scheduling_policy != "fair" and any(t.weight != 1 for t in tenants):
        raise UsageError(
            f"{path}: weights have no effect", hint="use --scheduling-policy fair"
        )
    part = share.fraction if share else 1.0
    return tuple(tenant.part(part) for tenant in tenants)


def _key(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as failed:
        raise UsageError(f"cannot read the key file {path}: {failed}") from None
