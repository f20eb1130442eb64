"""One question, until it is answered for good: what is sent again, and how often.

A request is sent again when the endpoint says that our key has expired and there is a
newer one, when it refuses a field that not every service knows, and, if the plan says
so, when it is throttled (429). All of that is one request with one row: its stamps
begin with the first attempt, and the row says how many there were. An open loop counts
what is throttled by default: a retry would be load that the plan does not have.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal

import gevent

from loadstone.units import Seconds
from loadstone.wire.api import Api, Body, Dialect, Question, encode

from .client import StreamingClient
from .exchange import Exchange

_log = logging.getLogger("loadstone")

On429 = Literal["count", "retry"]
_BACKOFF_S: Final = 1.0
_LONGEST_S: Final = 60.0
"""Without `Retry-After`: one second, then two, four, up to a minute, each halved at
most by chance, so that those refused together do not come back together."""
_MOST_KEYS: Final = 2
"""New keys that one request tries: the one it was sent with may be old twice over."""


@dataclass(frozen=True, slots=True)
class Patience:
    """What is done about 429: it counts, or is tried again so often."""

    on_429: On429 = "count"
    max_retries: int = 3

    def wait(self, exchange: Exchange, tried: int, rng: Random) -> Seconds | None:
        """Return how long to wait before the next attempt; None for no more."""
        if self.on_429 == "count" or exchange.status != 429:
            return None
        if tried >= self.max_retries:
            return None
        if exchange.retry_after_s is not None:
            return exchange.retry_after_s
        longest = min(_LONGEST_S, _BACKOFF_S * 2.0**tried)
        return longest * rng.uniform(0.5, 1.0)


class Asker:
    """Asks an endpoint through a client, in one API's words."""

    def __init__(
        self,
        client: StreamingClient,
        api: Api,
        *,
        patience: Patience | None = None,
        dialect: Dialect | None = None,
        rng: Random | None = None,
    ) -> None:
        self.client = client
        self.api = api
        self.dialect = dialect or Dialect()
        """What the endpoint takes; it learns as answers come."""
        self._patience = patience or Patience()
        self._rng = rng or Random(0)
        self._path = client.endpoint.path(api)

    def __repr__(self) -> str:
        return f"<Asker {self.api.name} {self.client!r}>"

    def ask(
        self, question: Question, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """Send a question until its answer stands; return that answer.

        `sent` is of the first attempt, bytes are of all of them.
        """
        dialect = self.dialect
        keys = throttled = 0
        before: Exchange | None = None
        while True:
            key = self.client.endpoint.api_key
            body = dialect.write(self.api, question)
            exchange = _added(self._send(body, headers), before)
            wait = self._patience.wait(exchange, throttled, self._rng)
            if exchange.status == 401 and keys < _MOST_KEYS and self._renew(key):
                keys += 1
            elif newer := dialect.after(exchange.status, exchange.error_text, body):
                dialect = self._learn(newer)
            elif wait is not None:
                throttled += 1
                gevent.sleep(wait)
            else:
                return exchange
            before = exchange

    def _send(self, body: Body, headers: Mapping[str, str] | None) -> Exchange:
        exchange = self.client.send(
            encode(body), path=self._path, headers=headers, stream=self.api.streams
        )
        if self.api.streams or exchange.error is not None:
            return exchange
        if exchange.reply is None or not exchange.reply.answered:
            said = "the answer holds no vector"
            return replace(exchange, error="empty_answer", error_text=said)
        return exchange

    def _renew(self, refused: str | None) -> bool:
        credential = self.client.endpoint.credential
        if credential is None or refused is None:
            return False
        return credential.renew(refused)

    def _learn(self, newer: Dialect) -> Dialect:
        """Take a dialect over for the questions to come, and say so once."""
        new = [name for name in newer.refused if name not in self.dialect.refused]
        if new:
            self.dialect = self.dialect.without(new)
            _log.warning("the endpoint refuses %s: left out from now on", new[-1])
        return newer


def _added(exchange: Exchange, before: Exchange | None) -> Exchange:
    """Return an exchange with what the attempts before it cost."""
    if before is None:
        return exchange
    told = exchange.retry_after_s
    return replace(
        exchange,
        sent=before.sent,
        connect_s=before.connect_s + exchange.connect_s,
        bytes_in=before.bytes_in + exchange.bytes_in,
        bytes_out=before.bytes_out + exchange.bytes_out,
        reconnects=before.reconnects + exchange.reconnects,
        retries=before.retries + 1,
        retry_after_s=before.retry_after_s if told is None else told,
    )
