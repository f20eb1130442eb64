"""What was counted for each run of a load generator: the books that it is held against.

A load generator that asks for the truth sends traces whose ids begin with its run's
half, so that every request says by itself which run it is of: several may share a
server. Whoever wants to know what came of a run's requests here asks `/runs/{run}`.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from aiohttp import web
from aiohttp.typedefs import Handler

from loadstone.units import Tokens
from loadstone.vocabulary import TRACEPARENT_HEADER, TRUTH_HEADER
from loadstone.wire.traceparent import TraceParent

from .hooks import CLIENT_WENT_AWAY

MOST_RUNS: Final = 256
"""Runs that are remembered: those that were heard of last."""


@dataclass(slots=True)
class RunCounts:
    """One run's requests by the status they were answered with, and its tokens.

    Tokens are those of answers that were written to their ends.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    unfinished: int = 0
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0

    def answered(self, input_tokens: Tokens, output_tokens: Tokens) -> None:
        """Count the tokens of an answer."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens


_RUN: Final = web.RequestKey("run", RunCounts)


def count_tokens(
    request: web.Request, input_tokens: Tokens, output_tokens: Tokens
) -> None:
    """Count an answer's tokens for the run that its request is of, if it is of one."""
    run = request.get(_RUN)
    if run is not None:
        run.answered(input_tokens, output_tokens)


class RunBooks:
    """The counts of the runs that were heard of last."""

    def __init__(self) -> None:
        self._server = uuid4().hex
        self._forgotten = 0
        self._runs: OrderedDict[str, RunCounts] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RunBooks of {len(self._runs)} runs>"

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Count the request if it is a run's; whatever becomes of it is counted."""
        headers = request.headers
        run = self._find(headers) if TRUTH_HEADER in headers else None
        if run is None:
            return await handler(request)
        request[_RUN] = run
        run.unfinished += 1
        status = CLIENT_WENT_AWAY
        try:
            response = await handler(request)
            status = response.status
        finally:
            run.unfinished -= 1
            run.statuses[status] += 1
        return response

    def _find(self, headers: Mapping[str, str]) -> RunCounts | None:
        trace = TraceParent.parse(headers.get(TRACEPARENT_HEADER))
        if trace is None:
            return None
        run = self._runs.get(trace.run_hex)
        if run is None:
            run = self._runs[trace.run_hex] = RunCounts()
            if len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
                self._forgotten += 1
        else:
            self._runs.move_to_end(trace.run_hex)
        return run

    async def tell(self, request: web.Request) -> web.Response:
        """Say what was counted for a run; nothing for one that was never heard of.

        `server` is another after a restart, and `forgotten` grows when a run's counts
        were let go of: who sees either has asked for counts that are not whole.
        """
        name = request.match_info["run"]
        run = self._runs.get(name) or RunCounts()
        facts: dict[str, Any] = {
            "run": name,
            "server": self._server,
            "forgotten": self._forgotten,
            "statuses": {str(s): n for s, n in sorted(run.statuses.items())},
            "unfinished": run.unfinished,
            "input_tokens": run.input_tokens,
            "output_tokens": run.output_tokens,
        }
        return web.json_response(facts)
