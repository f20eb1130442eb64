"""What a plan with retrieval needs: a store, questions, and processes that search.

Without `--store` it is loadstone's own sample, embedded by the endpoint itself into a
file of the run's folder, so that `loadstone run rag` goes with any endpoint that has
embeddings.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from loadstone.errors import LoadstoneError, UsageError
from loadstone.retrieval.documents import SAMPLE, read_documents, read_questions
from loadstone.retrieval.indexing import OWN, index, own_embedder
from loadstone.retrieval.passages import Cut
from loadstone.retrieval.pipeline import PASSAGES, Pipeline
from loadstone.retrieval.store import checked, open_store
from loadstone.traffic.flow import Flows, plain
from loadstone.traffic.plan import Plan

from .client import Endpoint, StreamingClient
from .embedder import EndpointEmbedder
from .retrieval import Searchers
from .workload import mix_of

FLOW: Final = "rag"
"""What classes call it."""
STORE: Final = "corpus.db"
"""The store of a run that was given none, in its folder."""
_OPTIONS: Final = ("store", "questions", "passages", "embeddings_host",
                   "embeddings_model")  # fmt: skip


class Retrieval(NamedTuple):
    """What a session needs for the flow."""

    flows: Flows
    close: Callable[[], None]


BUILT_IN: Final[Flows] = {FLOW: plain}
"""Stands for the flow before there is a store."""


def retrieves(plan: Plan) -> bool:
    """Whether the plan has the flow."""
    return FLOW in mix_of(plan).flows


def check_options(plan: Plan, values: Mapping[str, Any]) -> None:
    """Raise `UsageError` for options of retrieval that make no sense as given."""
    given = [name for name in _OPTIONS if values[name] is not None]
    if given and not retrieves(plan):
        raise UsageError(
            f"--{given[0].replace('_', '-')} has no meaning here: the plan does not"
            " retrieve",
            hint="it is for `loadstone run rag`",
        )
    if values["passages"] is not None and values["passages"] < 1:
        raise UsageError("--passages is to be 1 or more")
    if values["store"] is not None:
        checked(values["store"])
        if values["questions"] is None:
            raise UsageError(
                "--store without --questions: nothing to ask it",
                hint="give a file of JSON lines with `question`, or `sample`",
            )


def prepare(
    plan: Plan, values: Mapping[str, Any], embeds: Endpoint, folder: Path
) -> None:
    """Write the sample's store if none was given, and see that questions fit to it.

    Raises `LoadstoneError` before the run begins, for what would fail each request.
    """
    model = values["embeddings_model"] or plan.model
    client = StreamingClient(embeds)
    embedder = EndpointEmbedder(client, model)
    try:
        if values["store"] is None:
            index(
                read_documents(SAMPLE), str(folder / STORE),
                embedder=embedder, name=model, cut=Cut(),
            )  # fmt: skip
        (vector,) = embedder([_questions(values)[0].text])
    finally:
        client.close()
    with closing(open_store(_store(values, folder))) as store:
        about = store.about
    if len(vector) != 4 * about.dimensions:
        raise LoadstoneError(
            f"{model} embeds in {len(vector) // 4} dimensions, the store's passages"
            f" were embedded by {about.embedder} in {about.dimensions}",
            hint="embed both by the same model: `loadstone index --host --model`",
            code="dimensions",
        )


def retrieval(plan: Plan, values: Mapping[str, Any], folder: Path) -> Retrieval:
    """Start the processes that search, and return the flow that uses them.

    A plan without retrieval needs neither.
    """
    if not retrieves(plan):
        return Retrieval({}, lambda: None)
    searchers = Searchers(_store(values, folder))
    pipeline = Pipeline(
        _questions(values), searchers.search, seed=plan.seed, salt=plan.salt,
        model=values["embeddings_model"] or "",
        passages=values["passages"] or PASSAGES,
    )  # fmt: skip
    return Retrieval({FLOW: pipeline}, searchers.close)


def virtual(plan: Plan) -> Flows:
    """Return the flow for virtual time, where the sample is searched in this process.

    A question is embedded as the mock does it, and searched for once.
    """
    if not retrieves(plan):
        return {}
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / STORE)
        index(read_documents(SAMPLE), path, embedder=own_embedder, name=OWN, cut=Cut())
        store = open_store(path)  # an open file outlives its name
    search = lru_cache(maxsize=None)(store.search)
    questions = read_questions(SAMPLE)
    return {FLOW: Pipeline(questions, search, seed=plan.seed, salt=plan.salt)}


def _store(values: Mapping[str, Any], folder: Path) -> str:
    return values["store"] or str(folder / STORE)


def _questions(values: Mapping[str, Any]) -> list[Any]:
    return read_questions(values["questions"] or SAMPLE)
