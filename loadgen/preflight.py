"""Looks an endpoint over before money is spent on it: each thing tried, and found.

One short question is asked, and everything is read from its answer: whether the key,
the model and the path are right, whether it streams, counts, holds the length that was
asked for, and whether something on the way holds the events back. Two more calibrate
how much text makes a token. What is found is in the table of `findings`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

from loadstone.errors import ExitCode, LoadstoneError
from loadstone.traffic.plan import Plan
from loadstone.traffic.textfit import Point, TextFit, fit_text, lengths_to_try
from loadstone.units import Seconds
from loadstone.wire.api import APIS, Question
from loadstone.wire.reply import ChatReply

from .asking import Asker
from .client import Endpoint, Exchange, StreamingClient
from .diagnose import diagnose, found_in, nearest
from .findings import FINDINGS
from .probe import FIRST_TIMEOUTS, look, point_of, short_question, unnamed

ANSWER_TOKENS: Final = 32
"""Enough events to see whether they come one after the other."""
_EVENTS: Final = 8
_AT_ONCE_S: Final = 0.0002
"""Events closer than that on average were written together: no engine gives one stream
5,000 events in a second."""
SKEW_S: Final = 5.0
"""The Date header has whole seconds, and an answer is under way for some time."""
_LIMITS: Final = ("requests", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tried, what was found, and the code of what is wrong."""

    name: str
    tried: str
    found: str
    code: str | None = None
    hint: str = ""
    """What to do, where more is known than the table says."""

    @property
    def exit_code(self) -> ExitCode:
        """What it does to the check's exit code."""
        return ExitCode.DONE if self.code is None else FINDINGS[self.code].exit_code

    @property
    def remedy(self) -> str:
        """What to do about it; empty if nothing is wrong."""
        return self.hint or (FINDINGS[self.code].remedy if self.code else "")

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON has it."""
        told = {"name": self.name, "tried": self.tried, "found": self.found}
        if self.code is None:
            return told | {"ok": True}
        cause = FINDINGS[self.code].cause
        ok = self.exit_code is ExitCode.DONE
        return told | {
            "ok": ok, "code": self.code, "cause": cause, "remedy": self.remedy,
        }  # fmt: skip


@dataclass(slots=True)
class Preflight:
    """What came of a look at an endpoint."""

    endpoint: str
    api: str
    model: str = ""
    checks: list[Check] = field(default_factory=list)
    mock: dict[str, Any] | None = None
    refused: tuple[str, ...] = ()
    fit: TextFit | None = None
    ttft_s: Seconds | None = None
    tpot_s: Seconds | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The worst finding's: 2 before 1 before 0."""
        return max((c.exit_code for c in self.checks), default=ExitCode.DONE)

    @property
    def worst(self) -> Check | None:
        """The first check that decides the exit code, None if nothing is wrong."""
        code = self.exit_code
        if code is ExitCode.DONE:
            return None
        return next(c for c in self.checks if c.exit_code is code)

    def to_json(self) -> dict[str, Any]:
        """Return it all; `error` is there if something is wrong."""
        told = {
            "endpoint": self.endpoint,
            "api": self.api,
            "model": self.model,
            "checks": [check.to_json() for check in self.checks],
            "refused": list(self.refused),
            "text": self.fit.to_json() if self.fit else None,
            "ttft_s": self.ttft_s,
            "tpot_s": self.tpot_s,
        }
        if (worst := self.worst) is not None and worst.code is not None:
            cause = FINDINGS[worst.code].cause
            told["error"] = {
                "code": worst.code,
                "message": f"{worst.found}: {cause}",
                "hint": worst.remedy,
            }
        return told


def preflight(endpoint: Endpoint, plan: Plan) -> Preflight:
    """Look an endpoint over with a plan's API, model and settings. Never raises for it.

    At most five requests, three of which are short questions.
    """
    seen = Preflight(endpoint.url, plan.api, plan.model)
    client = StreamingClient(endpoint, timeouts=FIRST_TIMEOUTS)
    try:
        _Flight(seen, client, plan).fly()
    finally:
        client.close()
    return seen


class _Flight:
    """The steps, each of which may be the last."""

    def __init__(self, seen: Preflight, client: StreamingClient, plan: Plan) -> None:
        self._seen = seen
        self._client = client
        self._plan = plan
        self._models: tuple[str, ...] = ()
        self._asker = Asker(client, APIS[plan.api])

    def fly(self) -> None:
        if not self._connect():
            return
        if not self._choose_model():
            return
        question = self._question()
        exchange = self._asker.ask(question)
        self._seen.refused = self._asker.dialect.refused
        if not self._answered(exchange):
            return
        self._clock(exchange)
        self._refusals()
        self._limits(exchange)
        if self._asker.api.streams and exchange.reply is not None:
            self._streamed(exchange, exchange.reply)
        if exchange.reply is not None:
            self._counted(exchange.reply)
            self._length(exchange.reply)
        self._calibrate(point_of(question, exchange))

    def _note(
        self, name: str, tried: str, found: str, code: str | None = None,
        hint: str = "",
    ) -> None:  # fmt: skip
        check = Check(name=name, tried=tried, found=found, code=code, hint=hint)
        self._seen.checks.append(check)

    def _connect(self) -> bool:
        endpoint = self._client.endpoint
        secure = "name, TCP and TLS" if endpoint.tls else "name and TCP"
        tried = f"connect to {endpoint.url} ({secure}) and list its models"
        try:
            models, self._seen.mock = look(self._client)
        except LoadstoneError as wrong:
            cause = f": {FINDINGS[wrong.code].cause}"
            found = wrong.message.removesuffix(cause)
            self._note("connection", tried, found, wrong.code)
            return False
        self._models = models
        if endpoint.azure is not None:
            self._models = (endpoint.azure.deployment,)
        about = ", the mock" if self._seen.mock else ""
        self._note("connection", tried, f"it answers{about}; {_listed(models)}")
        return True

    def _choose_model(self) -> bool:
        tried = "choose the model to ask for"
        if not (model := self._plan.model or next(iter(self._models), "")):
            code, exchange = unnamed(self._asker)
            found = "it lists no model and --model names none"
            hint = "give --model NAME"
            if code != "model_unknown":
                found, hint = found_in(code, exchange, self._client.endpoint, ""), ""
            self._note("model", tried, found, code, hint)
            return False
        self._seen.model = model
        return True

    def _question(self) -> Question:
        chars = lengths_to_try(512)[0]
        question = short_question(
            self._seen.model, chars, -1, ignore_eos=self._plan.ignore_eos
        )
        return Question(
            model=question.model,
            messages=question.messages,
            max_tokens=ANSWER_TOKENS,
            ignore_eos=question.ignore_eos,
            continuous_usage=self._plan.continuous_usage,
        )

    def _answered(self, exchange: Exchange) -> bool:
        endpoint, model = self._client.endpoint, self._seen.model
        tried = f"one {self._asker.api.name} request to {model!r}"
        code = diagnose(exchange, endpoint)
        if code is not None:
            found = found_in(code, exchange, endpoint, model)
            hint = nearest(model, self._models) if code == "model_unknown" else ""
            self._note("answer", tried, found, code, hint)
            return False
        took = exchange.end - exchange.sent
        sizes = f"{exchange.bytes_out:,} bytes out, {exchange.bytes_in:,} in"
        self._note("answer", tried, f"an answer in {took:.2f} s ({sizes})")
        return True

    def _clock(self, exchange: Exchange) -> None:
        date = exchange.headers.get("date")
        try:
            theirs = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, OverflowError):
            return
        skew = theirs - time.time()
        wrong = abs(skew) > SKEW_S
        found = f"the server's is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
        self._note(
            "clock", "compare its Date header with our clock",
            found if wrong else "they agree", "clock_skew" if wrong else None,
        )  # fmt: skip

    def _refusals(self) -> None:
        tried = "fields that not every service knows"
        if refused := self._seen.refused:
            found = f"it refuses {', '.join(refused)}"
            self._note("fields", tried, found, "field_refused")

    def _limits(self, exchange: Exchange) -> None:
        told = [
            f"{left} of {most} {what}"
            for what in _LIMITS
            if (most := exchange.headers.get(f"x-ratelimit-limit-{what}"))
            and (left := exchange.headers.get(f"x-ratelimit-remaining-{what}"))
        ]
        if told:
            self._note("limits", "read its rate limit headers", "; ".join(told))

    def _streamed(self, exchange: Exchange, reply: ChatReply) -> None:
        tried = "read the answer as a stream of events"
        first, last = reply.first, reply.last
        if first is None or last is None:
            self._note("stream", tried, "one piece, no events", "not_streaming")
            return
        gap = (last - first) / max(1, reply.events - 1)
        self._seen.ttft_s = first - exchange.sent
        found = (
            f"{reply.events} events, the first after {self._seen.ttft_s * 1e3:.0f} ms,"
            f" then one each {gap * 1e3:.2f} ms"
        )
        at_once = reply.events >= _EVENTS and gap < _AT_ONCE_S
        self._note("stream", tried, found, "buffered" if at_once else None)
        rest = reply.output_tokens - reply.first_event_tokens
        self._seen.tpot_s = (last - first) / rest if rest > 0 else None

    def _counted(self, reply: ChatReply) -> None:
        tried = "read how many tokens it counted"
        if reply.usage is None:
            found = f"no usage; {reply.events} events"
            self._note("usage", tried, found, "no_usage")
            return
        counts = f"{reply.usage.input_tokens} in, {reply.usage.output_tokens} out"
        self._note("usage", tried, counts)

    def _length(self, reply: ChatReply) -> None:
        if not self._asker.api.streams:
            return
        tried = f"ask for {ANSWER_TOKENS} tokens"
        got = reply.output_tokens
        found = f"{got} tokens, ended by {reply.finish_reason or 'nothing'}"
        code = None
        if got > ANSWER_TOKENS:
            code = "length_ignored"
        elif got < ANSWER_TOKENS and self._plan.ignore_eos and reply.usage:
            code = "length_not_held"
        self._note("length", tried, found, code)

    def _calibrate(self, first: Point | None) -> None:
        if self._seen.mock is not None or first is None:
            return
        points = [first]
        for seed, chars in enumerate(lengths_to_try(512)[1:]):
            question = short_question(
                self._seen.model, chars, -seed - 2, ignore_eos=self._plan.ignore_eos
            )
            point = point_of(question, self._asker.ask(question))
            points += [point] if point else []
        self._seen.fit = fit_text(points)
        tried = f"fit characters to tokens on {len(points)} prompts"
        if (fit := self._seen.fit) is None:
            found = "its counts make no line; four characters count as a token"
        else:
            found = (
                f"{fit.chars_per_token:.2f} characters per token, and"
                f" {fit.template_tokens:.0f} tokens of template"
            )
        self._note("text", tried, found)


def _listed(models: Sequence[str]) -> str:
    if not models:
        return "no list of models"
    more = f" and {len(models) - 3} more" if len(models) > 3 else ""
    return f"models: {', '.join(models[:3])}{more}"
