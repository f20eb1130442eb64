"""Asks two endpoints the same prompts, one at a time, and keeps what they answer."""

from collections.abc import Callable, Sequence

from loadstone.errors import UsageError
from loadstone.traffic.agreement import Answer
from loadstone.units import Tokens
from loadstone.wire.api import APIS, Question
from loadstone.wire.reply import ChatReply

from .asking import Asker
from .client import Endpoint, Exchange, StreamingClient
from .diagnose import diagnose, error_of
from .probe import FIRST_TIMEOUTS

APIS_WITH_TEXT = ("chat", "completions", "responses")


def read_prompts(text: str, name: str) -> list[str]:
    """Read prompts, one a line; raises `UsageError` if there are none."""
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UsageError(f"{name} has no prompts", hint="write one on each line")
    return prompts


def ask_all(
    endpoint: Endpoint,
    prompts: Sequence[str],
    *,
    api: str,
    model: str,
    max_tokens: Tokens,
    seed: int,
    on_answer: Callable[[], None] = lambda: None,
) -> list[Answer | None]:
    """Return the endpoint's answers at temperature 0 and that seed, in order.

    None stands for one that failed. Raises the error of a finding if the first one
    does: then the others will.
    """
    client = StreamingClient(endpoint, timeouts=FIRST_TIMEOUTS)
    asker = Asker(client, APIS[api])
    answers: list[Answer | None] = []
    # The responses endpoint knows no seed.
    more = {"temperature": 0} | ({} if api == "responses" else {"seed": seed})
    try:
        for prompt in prompts:
            question = Question(
                model=model,
                messages=({"role": "user", "content": prompt},),
                max_tokens=max_tokens,
                more=more,
            )
            exchange = asker.ask(question)
            code = diagnose(exchange, endpoint)
            if code is not None and not answers:
                raise error_of(code, exchange, endpoint, model=model)
            reply = exchange.reply
            answers.append(_answer(exchange, reply) if reply and not code else None)
            on_answer()
    finally:
        client.close()
    return answers


def _answer(exchange: Exchange, reply: ChatReply) -> Answer:
    rest = reply.output_tokens - reply.first_event_tokens
    tpot_s = None
    if reply.first is not None and reply.last is not None and rest > 0:
        tpot_s = (reply.last - reply.first) / rest
    return Answer(
        text=reply.text,
        output_tokens=reply.output_tokens,
        ttft_s=reply.first - exchange.sent if reply.first is not None else None,
        tpot_s=tpot_s,
        e2e_s=exchange.end - exchange.sent,
    )
