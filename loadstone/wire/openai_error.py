"""OpenAI's error object: what went wrong with a request, in its clients' words."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self

_INVALID: Final = "invalid_request_error"
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class ApiError(Exception):
    """A request that is answered with an error instead of what it asked for.

    `param` names the field at fault and `code` is what programs branch on; either may
    be None. `retry_after_s` goes into the `Retry-After` header, in whole seconds, and
    `headers` as they are.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = _INVALID,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.headers = headers

    def __repr__(self) -> str:
        return f"<ApiError {self.status} {self.code or self.kind}: {self.message}>"

    def body(self) -> bytes:
        """Return the error object as JSON."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()

    @classmethod
    def not_modelled(cls, param: str, reason: str = "") -> Self:
        """Refuse what would need an answer that is not emulated."""
        detail = f": {reason}" if reason else ""
        return cls(
            f"'{param}' is not modelled by this emulated server{detail}. Leave it out.",
            param=param,
            code="not_modelled",
        )

    @classmethod
    def model_not_found(cls, asked: str, served: str) -> Self:
        """Refuse a model that is not served here."""
        return cls(
            f"The model '{asked}' does not exist here;"
            f" this server emulates '{served}'.",
            status=404,
            param="model",
            code="model_not_found",
        )

    @classmethod
    def unknown_path(cls, method: str, path: str) -> Self:
        """Answer for a path that leads nowhere."""
        return cls(f"Invalid URL ({method} {path})", status=404, code="unknown_url")

    @classmethod
    def bad_method(cls, method: str, path: str, allowed: str) -> Self:
        """Answer for a known path that does not take this method."""
        return cls(
            f"Not allowed to {method} on {path} (it takes {allowed})",
            status=405,
            code="method_not_allowed",
        )

    @classmethod
    def too_large(cls, limit_bytes: int) -> Self:
        """Refuse a body above the server's limit."""
        return cls(
            f"The request body is larger than {limit_bytes} bytes.",
            status=413,
            code="request_too_large",
        )

    @classmethod
    def bad_key(cls) -> Self:
        """Refuse a missing or wrong API key, without saying which it was."""
        return cls("Incorrect API key provided.", status=401, code="invalid_api_key")

    @classmethod
    def unavailable(cls, message: str, code: str | None = None) -> Self:
        """Answer that the server cannot serve, through no fault of the request."""
        return cls(message, status=503, kind="server_error", code=code)

    @classmethod
    def shutting_down(cls, retry_after_s: int | None = None) -> Self:
        """Answer for a server that was told to stop."""
        return cls(
            "The server is shutting down.",
            status=503,
            code="shutting_down",
            kind="server_error",
            retry_after_s=retry_after_s,
        )

    @classmethod
    def queue_full(cls, waiting: int, retry_after_s: int) -> Self:
        """Refuse a request because too many are waiting already."""
        return cls(
            f"Rate limit reached: {waiting} requests are waiting."
            f" Please try again in {retry_after_s}s.",
            status=429,
            code="rate_limit_exceeded",
            kind="rate_limit_exceeded",
            retry_after_s=retry_after_s,
        )
