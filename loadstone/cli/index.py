"""`loadstone index`: documents into a store that retrieval can search."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ..errors import LoadstoneError, UsageError
from ..retrieval.documents import Question, read_documents, read_questions
from ..retrieval.indexing import AT_ONCE, OWN, Embedder, index, own_embedder
from ..retrieval.passages import OVERLAP, SIZE, Cut
from ..retrieval.recall import DEPTHS, recall_at
from ..retrieval.store import About, Store, checked, open_store

_FILE: Final = "corpus.db"


@click.command(
    "index",
    epilog="""\b
Examples:
  loadstone index sample --check sample
  loadstone index docs/ --out corpus.db
  loadstone index docs.jsonl --host http://127.0.0.1:8000 --passage 128 --overlap 16
  loadstone index docs/ --store postgresql://me@db.example/rag
  loadstone index --out corpus.db --check questions.jsonl

\b
DOCS is a folder of .md and .txt files, a file of JSON lines, or `sample`:
  {"id": "kv-cache", "text": "While a model writes an answer ..."}
Questions are JSON lines; `documents` are the ids (or paths) that answer one:
  {"question": "What is kept for each token?", "documents": ["kv-cache"]}

A password of PostgreSQL comes from PGPASSWORD, ~/.pgpass or a service file.""",
)
@click.argument("docs", required=False)
@click.option("--out", metavar="FILE", help=f"SQLite file (default: {_FILE})")
@click.option("--store", metavar="URL", help="PostgreSQL instead: postgresql://...")
@click.option(
    "--passage", type=int, default=SIZE, show_default=True, metavar="TOKENS",
    help="longest passage (a token is four bytes)",
)  # fmt: skip
@click.option(
    "--overlap", type=int, default=OVERLAP, show_default=True, metavar="TOKENS",
    help="what a passage has in common with the one before, at most",
)  # fmt: skip
@click.option(
    "--host", metavar="URL",
    help="embed by this endpoint's /v1/embeddings; without it by loadstone's own"
    " embedding, which is also the mock's",
)  # fmt: skip
@click.option("--model", metavar="NAME", help="model (default: the first listed)")
@click.option("--api-key-env", metavar="VAR", help="variable that holds the key")
@click.option("--api-key-file", metavar="FILE", help="file that holds the key")
@click.option("--ca-file", metavar="FILE", help="authority of an https endpoint")
@click.option(
    "--check", "questions", metavar="FILE",
    help="print the recall of labelled questions, or of `sample`",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print one JSON document")
def command(
    *, docs: str | None, out: str | None, store: str | None, passage: int, overlap: int,
    questions: str | None, as_json: bool, **endpoint: str | None,
) -> None:  # fmt: skip
    """Cut DOCS into passages, embed them and write a store, or check one.

    The store is written as a whole or not at all; what was there before stays until
    then. Without DOCS, --check looks at a store that is there.
    """
    if out is not None and store is not None:
        raise UsageError("give --out or --store, not both")
    if docs is None and questions is None:
        raise UsageError(
            "nothing to index and nothing to check",
            hint="give DOCS (a folder, JSON lines, or `sample`), --check, or both",
        )
    address = checked(store or out or _FILE)
    cut = Cut(passage, overlap)
    asked = read_questions(questions) if questions else []
    documents = read_documents(docs) if docs else []
    progress = Console(stderr=True)
    with _embedder(endpoint) as (name, embedder):
        if docs:
            with _bar(progress, "embedding") as done:
                about = index(
                    documents, address, embedder=embedder, name=name, cut=cut, done=done
                )
        found = open_store(address)
        about = found.about
        try:
            recalls = _recalls(found, name, embedder, asked) if asked else None
        finally:
            found.close()
    if as_json:
        click.echo(json.dumps(_document(address, about, asked, recalls)))
    else:
        _print(address, about, asked, recalls)


@contextmanager
def _embedder(endpoint: dict[str, str | None]) -> Iterator[tuple[str, Embedder]]:
    """Yield what embeds, and its name."""
    if endpoint["host"] is None:
        given = [name for name, value in endpoint.items() if value]
        if given:
            raise UsageError(
                f"--{given[0].replace('_', '-')} has no meaning without --host"
            )
        yield OWN, own_embedder
        return
    from loadgen.auth import credential_of
    from loadgen.client import Endpoint, StreamingClient
    from loadgen.embedder import EndpointEmbedder
    from loadgen.probe import look

    place = Endpoint.parse(
        endpoint["host"],
        credential=credential_of(endpoint, os.environ),
        ca_file=endpoint["ca_file"],
    )
    client = StreamingClient(place)
    try:
        models, _ = look(client)
        model = endpoint["model"] or next(iter(models), None)
        if model is None:
            raise UsageError("the endpoint lists no model", hint="give --model NAME")
        yield model, EndpointEmbedder(client, model)
    finally:
        client.close()


@contextmanager
def _bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar where there is a terminal; yield what moves it."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what)
        yield lambda made, whole: bar.update(task, completed=made, total=whole)


def _recalls(
    store: Store, name: str, embedder: Embedder, asked: list[Question]
) -> dict[int, float]:
    """Search for every labelled question; return the recall at each depth."""
    labelled = [question for question in asked if question.documents]
    if not labelled:
        raise UsageError(
            "no question is labelled", hint='a label is "documents": ["name", ...]'
        )
    vectors = [
        vector
        for i in range(0, len(labelled), AT_ONCE)
        for vector in embedder([q.text for q in labelled[i : i + AT_ONCE]])
    ]
    if len(vectors[0]) != 4 * store.about.dimensions:
        raise LoadstoneError(
            f"the store's passages were embedded by {store.about.embedder} in"
            f" {store.about.dimensions} dimensions, the questions by {name} in"
            f" {len(vectors[0]) // 4}",
            hint="embed both by the same model: --host and --model",
            code="dimensions",
        )
    hits = [
        (store.search(vector, max(DEPTHS)), question.documents)
        for vector, question in zip(vectors, labelled, strict=True)
    ]
    return {k: recall_at(hits, k) or 0.0 for k in DEPTHS}


def _document(
    address: str,
    about: About,
    asked: list[Question],
    recalls: dict[int, float] | None,
) -> dict[str, Any]:
    told: dict[str, Any] = {"store": address, **asdict(about)}
    if recalls is not None:
        told["questions"] = sum(bool(q.documents) for q in asked)
        told["recall"] = {str(k): value for k, value in recalls.items()}
    return told


def _print(
    address: str,
    about: About,
    asked: list[Question],
    recalls: dict[int, float] | None,
) -> None:
    click.echo(
        f"{address}: {about.passages} passages of {about.documents} documents, at most"
        f" {about.size} tokens each, {about.overlap} in common; embedded by"
        f" {about.embedder} in {about.dimensions} dimensions"
    )
    if recalls is not None:
        n = sum(bool(q.documents) for q in asked)
        each = "  ".join(f"@{k} {value:.3f}" for k, value in recalls.items())
        click.echo(f"recall over {n} labelled questions: {each}")
