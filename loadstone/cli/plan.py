"""`loadstone plan`: the built-in plans, to look at and to copy, and their schema."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from loadgen.options import OPTIONS, Option, read_options
from loadgen.plans import find_plan
from loadgen.workload import mix_of

from ..catalog.plans import load_plan, plan_names, plan_text
from ..errors import UsageError
from ..report.ways import print_ways, way_of, ways
from ..runs import RunFiles
from ..traffic.fields import Schema
from ..traffic.plan import Plan
from ..traffic.planfile import plan_schema
from .completing import files, one_of
from .load_options import PLAN_OPTIONS

_ANY: Final[Schema] = {"type": ["string", "number", "boolean"]}


@click.group(
    "plan",
    epilog="""\b
Examples:
  loadstone plan list
  loadstone plan show chat > my.toml
  loadstone plan check my.toml
  loadstone plan schema > plan.schema.json
  loadstone plan ways runs/20260101-100000-chat runs/latest
  loadstone run my.toml --host http://127.0.0.1:8000""",
)
def command() -> None:
    """Show the built-in plans, check one's own, print the schema of a plan's file."""


@command.command("list", short_help="the built-in plans")
@click.option("--json", "as_json", is_flag=True, help="print them as JSON")
def list_plans(*, as_json: bool) -> None:
    """List the built-in plans."""
    texts = {name: load_plan(name).text for name in plan_names()}
    if as_json:
        click.echo(json.dumps(texts))
        return
    width = max(map(len, texts))
    for name, text in texts.items():
        click.echo(f"{name:<{width}}  {text}")


@command.command("show", short_help="a built-in plan's file")
@click.argument("name", shell_complete=one_of(plan_names))
def show(*, name: str) -> None:
    """Print a built-in plan's file, to be changed and run."""
    click.echo(plan_text(name), nl=False)


@command.command("check", short_help="read a plan as a run would")
@click.argument("path", shell_complete=files)
@click.option("--json", "as_json", is_flag=True, help="print what it says as JSON")
def check(*, path: str, as_json: bool) -> None:
    """Read a plan as a run would, with all the files it names; say what arrives."""
    found = find_plan(path, known=PLAN_OPTIONS)
    values = {k: v for k, v in found.options.items() if k not in ("host", "users")}
    read_options(values)
    mix = mix_of(Plan(scenario=found.name, classes=found.classes))
    prompts, answers = mix.pooled()
    said: dict[str, Any] = {
        "name": found.name,
        "text": found.text,
        "options": dict(found.options),
        "classes": [each.to_toml() for each in found.classes],
        "tenants": [each.to_toml() for each in found.tenants],
        "slo": [asdict(each) for each in found.slos],
        "prompt_tokens": {"mean": prompts.mean, "most": prompts.most},
        "answer_tokens": {"mean": answers.mean, "most": answers.most},
    }
    if as_json:
        click.echo(json.dumps(said))
        return
    click.echo(f"{found.name}: {found.text}")
    for each in found.classes:
        click.echo(f"  {each.name}, {each.weight:g} of the arrivals, {each.tenant}")
    click.echo(
        f"prompts of {prompts.mean:,.0f} tokens on average, at most {prompts.most:,};"
        f" answers of {answers.mean:,.0f}, at most {answers.most:,}"
    )


@command.command("ways", short_help="runs of one plan side by side")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print the figures as JSON")
def show_ways(*, runs: tuple[Path, ...], as_json: bool) -> None:
    """Show runs of one plan side by side: an endpoint, the mock, virtual time.

    RUNS are run folders; the first is what the others are compared with.
    """
    read = []
    for path in runs:
        files = RunFiles.open(path)
        summary = files.summary()
        if summary is None:
            raise UsageError(f"{path} has no summary: the run did not end")
        read.append((files.name, way_of(summary, files.environment()), summary))
    told = ways(read)
    if as_json:
        click.echo(json.dumps(told))
    else:
        print_ways(told, Console())


@command.command("schema", short_help="the schema of a plan's file")
def schema() -> None:
    """Print the JSON schema of a plan's file, for editors."""
    click.echo(schema_text(), nl=False)


def schema_text() -> str:
    """Return the schema as it is kept in `docs/plan.schema.json`."""
    options = {each.name: _schema_of(each) for each in OPTIONS}
    own = {
        "host": {"description": "the endpoint; commas between several", **_ANY},
        "users": {"description": "users, or most requests in flight", **_ANY},
    }
    known = {name: (options | own)[name] for name in PLAN_OPTIONS}
    return json.dumps(plan_schema(known), indent=2) + "\n"


def _schema_of(option: Option) -> Schema:
    return {"description": option.text, **_ANY}
