"""One question until it is answered: 429, keys that expire, fields that are refused."""

import json
from random import Random
from typing import Any

import pytest
from scripted import ANSWER, PATIENCE_S, Peer, Script, answer, serving

from loadgen.asking import Asker, Patience
from loadgen.auth import Credential, Token
from loadgen.client import Endpoint, Exchange, StreamingClient, Timeouts
from loadstone.wire.api import APIS, Dialect, Question

QUESTION = Question(
    model="m", messages=({"role": "user", "content": "hi"},), max_tokens=4,
    ignore_eos=True,
)  # fmt: skip
LIMITED = "429 Too Many Requests"
WAITS = Timeouts(PATIENCE_S, PATIENCE_S, PATIENCE_S, PATIENCE_S)


def error(status: str, message: str, *headers: str) -> bytes:
    """Return an answer with OpenAI's error object."""
    body = json.dumps({"error": {"message": message}}).encode()
    return answer(status, body, *headers)


class Talk:
    """A server's side of one connection: its answers in turn, and what it was sent."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.heads: list[str] = []
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, peer: Peer) -> None:
        """Answer each request."""
        for response in self.answers:
            head, _, body = peer.request().partition(b"\r\n\r\n")
            self.heads.append(head.decode())
            self.bodies.append(json.loads(body))
            peer.send(response)

    @property
    def keys(self) -> list[str]:
        """The keys that were shown."""
        lines = [line for head in self.heads for line in head.split("\r\n")]
        return [line.partition(": ")[2] for line in lines if "authorization" in line]


def ask(talk: Script, api: str = "chat", **more: Any) -> tuple[Exchange, Asker]:
    """Ask once, by a client of its own."""
    credential = more.pop("credential", None)
    with serving(talk) as server:
        endpoint = Endpoint.parse(server.url, credential=credential)
        client = StreamingClient(endpoint, timeouts=WAITS)
        asker = Asker(client, APIS[api], rng=Random(1), **more)
        exchange = asker.ask(QUESTION)
        client.close()
    return exchange, asker


RETRY = Patience("retry", 2)


def test_a_throttled_request_counts_by_default() -> None:
    """An open loop sends what was planned, no more; the row says what it was told."""
    talk = Talk(error(LIMITED, "slow down", "Retry-After: 7"))
    exchange, _ = ask(talk)
    assert (exchange.status, exchange.error) == (429, "http_429")
    assert (exchange.retries, exchange.retry_after_s) == (0, 7.0)


def test_retry_after_is_honoured() -> None:
    """It waits as long as it was told, then asks the same; one request, one answer."""
    limited = error(LIMITED, "slow down", "retry-after-ms: 40")
    talk = Talk(limited, limited, ANSWER)
    exchange, _ = ask(talk, patience=RETRY)
    assert (exchange.status, exchange.error) == (200, None)
    assert (exchange.retries, exchange.retry_after_s) == (2, 0.04)
    assert exchange.end - exchange.sent >= 0.08
    assert talk.bodies[0] == talk.bodies[1] == talk.bodies[2]


def test_bytes_are_those_of_all_attempts() -> None:
    """As the server's side of the socket counts them."""
    limited = error(LIMITED, "slow down", "retry-after-ms: 1")
    talk = Talk(limited, ANSWER)
    sizes: list[int] = []

    def counting(peer: Peer) -> None:
        whole = peer.request
        peer.request = lambda: sizes.append(len(data := whole())) or data
        talk(peer)

    exchange, _ = ask(counting, patience=RETRY)
    assert exchange.bytes_out == sum(sizes)
    assert exchange.bytes_in == len(limited) + len(ANSWER)


def test_patience_ends() -> None:
    """After so many attempts it is throttled all the same."""
    limited = error(LIMITED, "slow down", "retry-after-ms: 1")
    exchange, _ = ask(Talk(limited, limited, limited), patience=RETRY)
    assert (exchange.status, exchange.retries) == (429, 2)


def test_without_retry_after_the_waits_double() -> None:
    """Up to a minute, halved at most by chance; and nothing else is waited for."""
    said = Exchange(sent=0, end=1, status=429, error="http_429")
    patience, rng = Patience("retry", 10), Random(3)
    waits = [patience.wait(said, tried, rng) for tried in range(10)]
    for tried, wait in enumerate(waits):
        longest = min(60.0, 2.0**tried)
        assert wait is not None
        assert longest / 2 <= wait <= longest
    assert patience.wait(said, 10, rng) is None
    assert Patience().wait(said, 0, rng) is None
    fine = Exchange(sent=0, end=1, status=503, error="http_503", retry_after_s=1.0)
    assert patience.wait(fine, 0, rng) is None


def keyring(*keys: str) -> Credential:
    """Return a credential that has these keys in turn, the last one for ever."""
    left = list(keys[1:])

    def fetch() -> Token:
        return Token(left.pop(0) if left else keys[-1])

    return Credential(Token(keys[0]), fetch)


REFUSED = error("401 Unauthorized", "the token has expired")


def test_a_key_that_expires_in_mid_run_is_renewed() -> None:
    """The request that met the expiry is sent again with the new key, and counts it."""
    credential = keyring("old", "new")
    talk = Talk(REFUSED, ANSWER)
    exchange, _ = ask(talk, credential=credential)
    assert (exchange.error, exchange.retries) == (None, 1)
    assert talk.keys == ["Bearer old", "Bearer new"]
    assert (credential.renewals, credential.secrets) == (1, ("new", "old"))


@pytest.mark.parametrize(
    ("credential", "shown"),
    [
        (None, 0),
        (Credential(Token("fixed")), 1),
        (keyring("same", "same"), 1),
        (keyring("a", "b", "c", "d"), 3),
    ],
)
def test_a_key_that_stays_refused(credential: Credential | None, shown: int) -> None:
    """No new key, no new attempt; and new keys are not tried for ever."""
    talk = Talk(*[REFUSED] * max(1, shown))
    exchange, _ = ask(talk, credential=credential)
    assert exchange.status == 401
    assert len(talk.keys) == shown


def test_a_refused_field_is_left_out_from_then_on() -> None:
    """The first question finds out; the next one is sent without."""
    refusal = error("400 Bad Request", "Unrecognized argument: ignore_eos")
    again = error("400 Bad Request", "Unknown parameter: 'min_tokens'.")
    talk = Talk(refusal, again, ANSWER)
    exchange, asker = ask(talk)
    assert (exchange.error, exchange.retries) == (None, 2)
    assert [("ignore_eos" in b, "min_tokens" in b) for b in talk.bodies] == [
        (True, False), (False, True), (False, False),
    ]  # fmt: skip
    assert asker.dialect == Dialect(("ignore_eos", "min_tokens"))
    talk = Talk(ANSWER)
    exchange, _ = ask(talk, dialect=asker.dialect)
    assert exchange.retries == 0


def test_a_wrong_value_is_not_sent_again() -> None:
    """What is refused for its value fails, with the server's words."""
    talk = Talk(error("400 Bad Request", "max_tokens is too large: 4"))
    exchange, _ = ask(talk)
    assert (exchange.status, exchange.retries) == (400, 0)
    assert exchange.error_text == "max_tokens is too large: 4"


VECTORS = {"data": [{"embedding": [0.5, 0.5]}], "usage": {"prompt_tokens": 3}}


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (VECTORS, None),
        ({"data": [{"embedding": "AAAA"}]}, None),
        ({"data": []}, "empty_answer"),
        ({"data": [{"embedding": []}]}, "empty_answer"),
        ({"data": [{"embedding": [1.0]}, {}]}, "empty_answer"),
    ],
)
def test_embeddings(body: dict[str, Any], wrong: str | None) -> None:
    """An answer in one piece, which has to hold a vector."""
    talk = Talk(answer("200 OK", json.dumps(body).encode()))
    exchange, _ = ask(talk, "embeddings")
    assert exchange.error == wrong
    assert talk.heads[0].startswith("POST /v1/embeddings ")
    assert "Accept: application/json" in talk.heads[0]
    assert talk.bodies[0] == {
        "model": "m", "input": "hi", "encoding_format": "base64",
    }  # fmt: skip
