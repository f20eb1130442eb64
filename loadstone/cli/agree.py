"""`loadstone agree`: how far two endpoints' answers agree, beside the speed gain."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from loadgen.files import read_text
from loadgen.options import OPTIONS, read_options

from ..errors import ExitCode, UsageError
from ..report.table import number
from ..traffic.agreement import MEASURES, compare
from .load_options import load_options
from .sections import Sectioned

AGREEMENT: Final = "agreement.json"
_OPTIONS: Final = (
    "model", "api", "seed", "api_key_env", "api_key_file", "api_key_cmd", "auth",
    "entra_scope", "azure_deployment", "azure_api_version", "ca_file", "proxy",
)  # fmt: skip
_OF_B: Final = ("model", "api_key_env", "api_key_file", "api_key_cmd")
"""Options that the second host may have of its own."""


@click.command(
    "agree",
    cls=Sectioned,
    epilog="""\b
Examples:
  loadstone agree --host http://bf16:8000 --host http://fp4:8000 prompts.txt
  loadstone agree --host https://a.example.com --api-key-env A_KEY \\
    --host https://b.example.com --b-api-key-env B_KEY --max-tokens 512 prompts.txt""",
)
@click.argument("prompts", type=click.Path(path_type=Path))
@click.option(
    "--host", "hosts", multiple=True, required=True, metavar="URL",
    help="an endpoint; give two: the reference first, then the one to compare",
)  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(1), default=256, show_default=True,
    metavar="N", help="how long an answer may be",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(AGREEMENT),
    show_default=True, metavar="FILE", help="where the figures go",
)  # fmt: skip
@click.option("--b-model", metavar="NAME", help="model of the second host, if another")
@click.option("--b-api-key-env", metavar="VAR", help="key of the second host")
@click.option("--b-api-key-file", metavar="FILE", help="key of the second host")
@click.option("--b-api-key-cmd", metavar="COMMAND", help="key of the second host")
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON")
@load_options(set(_OPTIONS))
def command(
    *, prompts: Path, hosts: tuple[str, ...], max_tokens: int, out: Path,
    as_json: bool, **given: str | None,
) -> ExitCode:  # fmt: skip
    """Ask two endpoints the PROMPTS (one a line), and say how far they agree.

    At temperature 0 and with one seed: exact answers, common beginnings, token overlap,
    each with an interval of 95 %, beside how much faster the second is. The first is
    asked twice: how far it agrees with itself is what the other is held against.
    """
    if len(hosts) != 2:
        raise UsageError(
            f"two hosts are compared, not {len(hosts)}",
            hint="give --host A --host B: the reference first",
        )
    values = read_options({o.name: given.get(o.name) for o in OPTIONS})
    other = values | _second(given)
    figures = _figures(
        hosts, (values, other), _read(prompts), max_tokens=max_tokens,
        console=Console(stderr=True),
    )  # fmt: skip
    _write(out, figures)
    if as_json:
        click.echo(json.dumps(figures))
    else:
        _show(figures, Console(), out)
    return ExitCode.DONE if figures["answered"] else ExitCode.NOT_VALID


def _read(path: Path) -> list[str]:
    from loadgen.agreeing import read_prompts

    return read_prompts(read_text(str(path), "prompts"), str(path))


def _second(given: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the options of the second host that are not the first's."""
    own = {name: given.get(f"b_{name}") for name in _OF_B}
    changed: dict[str, Any] = {n: text for n, text in own.items() if text is not None}
    if any(name.startswith("api_key") for name in changed):
        # A key of its own takes the place of the first one's, wherever that is from.
        keys = {name: own[name] for name in _OF_B if name.startswith("api_key")}
        changed |= keys
    return changed


def _figures(
    hosts: tuple[str, ...], options: tuple[dict[str, Any], dict[str, Any]],
    prompts: list[str], *, max_tokens: int, console: Console,
) -> dict[str, Any]:  # fmt: skip
    from loadgen.agreeing import APIS_WITH_TEXT, ask_all
    from loadgen.target import endpoint_of

    api, seed = options[0]["api"], options[0]["seed"]
    if api not in APIS_WITH_TEXT:
        raise UsageError(f"--api {api} gives no text that could agree")
    endpoints = [
        endpoint_of(host, values, os.environ)
        for host, values in zip(hosts, options, strict=True)
    ]
    models = [_model(at, v) for at, v in zip(endpoints, options, strict=True)]
    rounds = (("A", 0), ("A again", 0), ("B", 1))
    answers = []
    for name, which in rounds:
        console.print(f"asking {name} {len(prompts)} prompts", highlight=False)
        answers.append(
            ask_all(
                endpoints[which], prompts, api=api, model=models[which],
                max_tokens=max_tokens, seed=seed,
            )
        )  # fmt: skip
    told = compare(*answers, seed=seed)
    return {
        "a": {"host": endpoints[0].url, "model": models[0]},
        "b": {"host": endpoints[1].url, "model": models[1]},
        "api": api,
        "seed": seed,
        "temperature": 0,
        "max_tokens": max_tokens,
        **told,
    }


def _model(endpoint: Any, values: Mapping[str, Any]) -> str:
    """Return the model to ask for: the one named, or the first that is listed."""
    from loadgen.client import StreamingClient
    from loadgen.findings import fault
    from loadgen.probe import TIMEOUTS, look

    if values["model"]:
        return str(values["model"])
    if endpoint.azure is not None:
        return str(endpoint.azure.deployment)
    client = StreamingClient(endpoint, timeouts=TIMEOUTS)
    try:
        models, _ = look(client)
    finally:
        client.close()
    if not models:
        raise fault("model_unknown", f"{endpoint.url} lists no model")
    return models[0]


def _write(out: Path, figures: Mapping[str, Any]) -> None:
    try:
        out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as failed:
        raise UsageError(f"cannot write {out}: {failed.strerror}") from None


def _show(figures: Mapping[str, Any], console: Console, out: Path) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for title in ("", "A and B", "A and A again"):
        table.add_column(title)
    for name in MEASURES:
        pair = (figures[side][name] for side in ("each_other", "itself"))
        table.add_row(name, *map(_share, pair))
    console.print(
        f"A  {figures['a']['host']}  {figures['a']['model']}", highlight=False
    )
    console.print(
        f"B  {figures['b']['host']}  {figures['b']['model']}", highlight=False
    )
    console.print(f"{figures['answered']} of {figures['prompts']} prompts answered")
    console.print(table)
    for name, told in figures["speed"].items():
        if told is not None:
            low, high = told["interval"]
            console.print(
                f"{name.removesuffix('_s'):5} B is {number(told['ratio'], 2)} times as"
                f" fast ({number(low, 2)} to {number(high, 2)})",
                highlight=False,
            )
    for limit in figures["limits"]:
        console.print(f"[dim]- {limit}[/dim]", highlight=False)
    console.print(f"[dim]{out}[/dim]", highlight=False)


def _share(told: Mapping[str, Any]) -> str:
    if told["mean"] is None:
        return "-"
    low, high = told["interval"]
    return f"{100 * told['mean']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
