"""Bodies of requests: bytes that should be one JSON object."""

import json
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, NoReturn, TypeVar

from .openai_error import ApiError

Parsed = TypeVar("Parsed")
_HALF_PAIR: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""JSON can spell half of a surrogate pair; no encoding of text can."""


def reading(
    parse: Callable[[dict[str, Any]], Parsed],
) -> Callable[..., Parsed]:
    """Make a reader of objects one of bytes; all that can be wrong is an `ApiError`.

    `defaults` are fields that come with the path and not with the body.
    """

    @wraps(parse)
    def read(body: bytes, **defaults: Any) -> Parsed:
        payload = read_object(body) | defaults
        try:
            parsed = parse(payload)
            if _HALF_PAIR.search(body):
                json.dumps(payload, ensure_ascii=False).encode()
        except RecursionError:
            raise _unreadable("nested too deeply") from None
        except UnicodeEncodeError:
            raise _unreadable("it has half of a surrogate pair") from None
        return parsed

    return read


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; raises `ApiError` for bytes that are anything else."""
    try:
        payload = _decode(body.decode())
    except RecursionError:
        raise _unreadable("nested too deeply") from None
    except ValueError as error:
        # Bad UTF-8, bad JSON and integers of thousands of digits alike.
        raise _unreadable(str(error)) from None
    if not isinstance(payload, dict):
        raise ApiError(
            "The body of your request must be a JSON object.", code="invalid_json"
        )
    return payload


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name[:60]!r} is there twice")
            seen.add(name)
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: with hooks, `json.loads` would make one for every request.
_decode: Final = json.JSONDecoder(
    parse_constant=_refuse_constant, object_pairs_hook=_object
).decode


def _unreadable(reason: str) -> ApiError:
    return ApiError(
        f"We could not parse the JSON body of your request: {reason}.",
        code="invalid_json",
    )
