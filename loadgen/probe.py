"""Looks at an endpoint before a run: is it there, what has it, is it the mock.

Of anything but the mock it asks a few short questions too: whether key, model and path
are right is told before the run and not by each of its requests, and the answers say
which fields the service refuses and how much text makes a token there.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from loadstone.errors import ExitCode, UsageError
from loadstone.traffic.plan import Plan
from loadstone.traffic.textfit import Point, TextFit, fit_text, lengths_to_try
from loadstone.units import Tokens
from loadstone.wire.api import APIS, Question
from loadstone.wire.tokens import BYTES_PER_TOKEN, PER_MESSAGE, prompt_of

from .asking import Asker
from .client import Endpoint, Exchange, StreamingClient, Timeouts
from .diagnose import diagnose, error_of
from .exchange import plain
from .findings import FINDINGS

TIMEOUTS: Final = Timeouts(connect=10.0, first_byte=10.0, total=20.0)
FIRST_TIMEOUTS: Final = Timeouts(connect=10.0, first_byte=60.0, total=90.0)
"""A first answer may have to wait for others."""
SHORT_ANSWER: Final[Tokens] = 16
"""The responses endpoint takes no less."""
_LONGEST: Final[Tokens] = 512
_SAME: Final = ("preset", "slowdown", "clock")
"""What a mock says of itself that is the same for all hosts of a run."""


@dataclass(frozen=True, slots=True)
class Target:
    """What an endpoint says of itself; `mock` is the mock's `/version`, else None.

    `refused` are the fields that it does not take, and `fit` how much text makes a
    token; None on the mock, and where no count came back.
    """

    models: tuple[str, ...]
    mock: dict[str, Any] | None
    refused: tuple[str, ...] = ()
    fit: TextFit | None = None


def probe_all(
    endpoints: Sequence[Endpoint], plan: Plan, wanted: Callable[[], bool]
) -> Target:
    """Ask every endpoint, and return what they are as one.

    The mocks are one with all their VMs; of others the first is asked more than what it
    lists. Raises what `probe` does, and `UsageError` for endpoints that cannot be
    measured as one: some are the mock and some are not, they emulate different
    machines, or lack the model that is asked for (none: the first that the first one
    lists).
    """
    first = probe(endpoints[0], plan, wanted)
    targets = [first, *(_seen(endpoint) for endpoint in endpoints[1:])]
    model = plan.model or next(iter(first.models), "")
    for endpoint, target in zip(endpoints, targets, strict=True):
        if len(targets) > 1 and target.models and model not in target.models:
            raise UsageError(f"{endpoint.url} does not list the model {model!r}")
        if _kind(target) != _kind(first):
            raise UsageError(
                f"{endpoint.url} is not what {endpoints[0].url} is:"
                f" {_kind(target)}, not {_kind(first)}",
                hint="several hosts are measured as one; give equal ones",
            )
    mocks = [target.mock for target in targets if target.mock is not None]
    if not mocks:
        return first
    whole = {"vms": 0, "engines": 0}
    for mock in mocks:
        for count in whole:
            whole[count] += int(mock.get(count) or 0)
    return replace(first, mock=mocks[0] | whole)


def _kind(target: Target) -> str:
    """Say what must be the same of all hosts of a run."""
    if target.mock is None:
        return "an endpoint"
    return " ".join(f"{name} {target.mock.get(name)}" for name in _SAME)


def probe(
    endpoint: Endpoint, plan: Plan, wanted: Callable[[], bool] = lambda: True
) -> Target:
    """Ask for the models, whether this is the mock, and if not, a few questions.

    The questions cost something, so `wanted` is asked before each of them.
    Raises the error of a finding when nothing answers, and for what was given wrong:
    the key, the model, the path. What may pass, such as a limit, is left to the run.
    """
    seen = _seen(endpoint)
    models = seen.models
    model = plan.model or next(iter(models), "")
    if seen.mock is not None:
        _check_mock(endpoint, model, models)
        return seen
    if not wanted():
        return seen
    client = StreamingClient(endpoint, timeouts=FIRST_TIMEOUTS)
    try:
        if not model:
            code, exchange = unnamed(Asker(client, APIS[plan.api]))
            raise error_of(code, exchange, endpoint, model=model)
        return _learn(Asker(client, APIS[plan.api]), plan, model, models, wanted)
    finally:
        client.close()


def _seen(endpoint: Endpoint) -> Target:
    """Return what an endpoint lists, and whether it is the mock."""
    client = StreamingClient(endpoint, timeouts=TIMEOUTS)
    try:
        models, mock = look(client)
    finally:
        client.close()
    if endpoint.azure is not None:
        models = (endpoint.azure.deployment,)
    return Target(models=models, mock=mock)


def look(client: StreamingClient) -> tuple[tuple[str, ...], dict[str, Any] | None]:
    """Return an endpoint's models, and the mock's `/version` if it is the mock.

    An endpoint may have no list of models. Raises the error of a finding if nothing
    answers, or the key or the scheme is wrong, and `UsageError` for what does not
    answer questions itself.
    """
    endpoint = client.endpoint
    below = "/openai/v1" if endpoint.azure else "/v1"
    listing = client.send(path=f"{below}/models", method="GET")
    code = diagnose(listing, endpoint)
    if code is not None and code not in _LIST_MAY:
        raise error_of(code, listing, endpoint)
    version = object_in(client.send(path="/version", method="GET"))
    workers = version.get("workers")
    if isinstance(workers, list):
        raise UsageError(
            f"{endpoint.url} is the supervisor of {len(workers)} workers, which answer",
            hint="drive them: " + " ".join(f"--host {url}" for url in workers),
        )
    return models_in(listing), version if version.get("emulated") is True else None


_LIST_MAY: Final = ("path_unknown", "request_refused", "server_error", "forbidden",
                    "throttled", "throttled_no_hint", "bad_response")  # fmt: skip
"""What a list of models may end in at an endpoint that answers questions."""


def unnamed(asker: Asker) -> tuple[str, Exchange]:
    """Say what is wrong where no model is named and none is listed: that, or the path.

    Returns the finding's code and the exchange that showed it.
    """
    question = short_question("-", BYTES_PER_TOKEN, 0, ignore_eos=False)
    exchange = asker.ask(question)
    code = diagnose(exchange, asker.client.endpoint)
    return ("path_unknown" if code == "path_unknown" else "model_unknown"), exchange


def models_in(listing: Exchange) -> tuple[str, ...]:
    """Return the ids of a list of models; none for anything else."""
    found = object_in(listing).get("data")
    models = found if isinstance(found, list) else []
    return tuple(
        plain(str(m["id"])) for m in models if isinstance(m, dict) and "id" in m
    )


def object_in(exchange: Exchange) -> dict[str, Any]:
    """Return the JSON object of a body; an empty one for anything else."""
    try:
        body = json.loads(exchange.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def short_question(model: str, chars: int, seed: int, *, ignore_eos: bool) -> Question:
    """Return a question of so many characters that wants a short answer."""
    content = prompt_of(chars // BYTES_PER_TOKEN + PER_MESSAGE, seed)
    return Question(
        model=model,
        messages=({"role": "user", "content": content},),
        max_tokens=SHORT_ANSWER,
        ignore_eos=ignore_eos,
    )


def point_of(question: Question, exchange: Exchange) -> Point | None:
    """Return what a reply says of the length of its prompt, if it does."""
    usage = exchange.reply.usage if exchange.reply else None
    if usage is None or not usage.input_tokens:
        return None
    return Point(len(question.text), usage.input_tokens)


def _learn(
    asker: Asker,
    plan: Plan,
    model: str,
    models: Sequence[str],
    wanted: Callable[[], bool],
) -> Target:
    endpoint, points = asker.client.endpoint, []
    lengths = lengths_to_try(_LONGEST)
    for seed, chars in enumerate(lengths[:1] if plan.chars_per_token else lengths):
        if not wanted():
            break
        question = short_question(model, chars, -seed - 1, ignore_eos=plan.ignore_eos)
        exchange = asker.ask(question)
        code = diagnose(exchange, endpoint)
        if code is not None and FINDINGS[code].exit_code is ExitCode.USAGE:
            raise error_of(code, exchange, endpoint, model=model, models=models)
        if code is not None:
            break
        if (point := point_of(question, exchange)) is not None:
            points.append(point)
    return Target(
        models=tuple(models) or (model,),
        mock=None,
        refused=asker.dialect.refused,
        fit=fit_text(points),
    )


def _check_mock(endpoint: Endpoint, model: str, models: Sequence[str]) -> None:
    if models and model not in models:
        answer = Exchange(sent=0.0, end=0.0, status=404)
        raise error_of("model_unknown", answer, endpoint, model=model, models=models)
