"""The handlers that answer at once, without an engine."""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from loadstone import __version__
from loadstone.units import Seconds
from loadstone.wire import tokens
from loadstone.wire.openai_error import ApiError
from loadstone.wire.openai_request import parse_detokenize, parse_tokenize
from loadstone.wire.openapi import describe

from .config import ServerConfig
from .driver import Driver
from .edge import read_body
from .entrance import Entrance

Metrics = Callable[[str, Seconds], tuple[bytes, str]]
"""Renders the exposition for an `Accept` header at an instant of engine time: its bytes
and their content type."""


class Probes:
    """What the server says of itself, and the token rule."""

    def __init__(
        self, config: ServerConfig, driver: Driver, metrics: Metrics, entrance: Entrance
    ) -> None:
        self._config = config
        self._entrance = entrance
        self._metrics = metrics
        self._clock = driver.clock
        self._fleet = driver.fleet
        self._max_model_len = driver.fleet.engines[0].max_model_len
        self._created = int(driver.clock.epoch(driver.clock.now()))

    def __repr__(self) -> str:
        return f"<Probes of {self._config.model}>"

    async def models(self, _: web.Request) -> web.Response:
        """List the model, once under each of its names."""
        data = [self._model(name) for name in self._config.names]
        return web.json_response({"object": "list", "data": data})

    async def model(self, request: web.Request) -> web.Response:
        """Tell of one model; raises `ApiError` if it is not served."""
        name = request.match_info["model"]
        self._check_model(name)
        return web.json_response(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "loadstone",
            "root": self._config.model,
            "max_model_len": self._max_model_len,
        }

    async def health(self, _: web.Request) -> web.Response:
        """Say that the process answers; as vLLM's, the body is empty."""
        return web.Response()

    async def ready(self, _: web.Request) -> web.Response:
        """Say whether a request would be taken now; raises `ApiError` if not."""
        self._entrance.check()
        waiting = self._fleet.waiting
        if not self._fleet.up:
            raise ApiError.unavailable("Every engine is lost.", "not_ready")
        if waiting >= self._config.max_waiting:
            raise ApiError(
                f"{waiting} requests are waiting.",
                status=503,
                kind="server_error",
                code="not_ready",
            )
        return web.json_response({"status": "ready", "waiting": waiting})

    async def version(self, _: web.Request) -> web.Response:
        """Say what this is: nobody may take it for a real engine."""
        facts: dict[str, Any] = {
            "version": __version__,
            "preset": self._config.preset,
            "model": self._config.model,
            "vms": self._config.vms,
            "engines": len(self._fleet.engines),
            "slowdown": self._config.slowdown,
            "stream_interval": self._config.stream_interval,
            "lag_alarm": self._clock.lagging,
            "clock": self._config.clock,
            "emulated": True,
        }
        return web.json_response(facts)

    async def openapi(self, _: web.Request) -> web.Response:
        """Describe the API."""
        return web.json_response(describe(__version__))

    async def metrics(self, request: web.Request) -> web.Response:
        """Render the metrics as of now, in the format the scraper can read."""
        accept = ",".join(request.headers.getall("Accept", ()))
        body, content_type = self._metrics(accept, self._clock.now())
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def tokenize(self, request: web.Request) -> web.Response:
        """Count tokens by the house's rule, in the shape of vLLM's `/tokenize`."""
        asked = parse_tokenize(await read_body(request, self._config.max_body_bytes))
        self._check_model(asked.model)
        strings = [tokens.detokenize([i]) for i in asked.ids] if asked.strings else None
        return web.json_response(
            {
                "count": len(asked.ids),
                "max_model_len": self._max_model_len,
                "tokens": asked.ids,
                "token_strs": strings,
            }
        )

    async def tokenizer_info(self, _: web.Request) -> web.Response:
        """Tell of the token rule as vLLM tells of a tokenizer.

        The special token is that of the chat template: zeros, which show nothing.
        """
        special = tokens.SPECIAL
        return web.json_response(
            {
                "tokenizer_class": "loadstone: four bytes of UTF-8",
                "bos_token": None,
                "eos_token": special,
                "pad_token": special,
                "model_max_length": self._max_model_len,
            }
        )

    async def detokenize(self, request: web.Request) -> web.Response:
        """Give the text of token ids, in the shape of vLLM's `/detokenize`."""
        asked = parse_detokenize(await read_body(request, self._config.max_body_bytes))
        self._check_model(asked.model)
        return web.json_response({"prompt": tokens.detokenize(asked.ids)})

    def _check_model(self, asked: str) -> None:
        if asked and asked not in self._config.names:
            raise ApiError.model_not_found(asked, ", ".join(self._config.names))
