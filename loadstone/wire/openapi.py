"""The API's description, in OpenAPI 3.1, made from the tables that requests meet."""

import re
from dataclasses import dataclass
from typing import Any, Final

from .openai_fields import CHAT, COMPLETION, DETOKENIZE, EMBEDDING, RESPONSE, TOKENIZE
from .rules import Form

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One path: who takes it, what comes back, and where else it is found.

    `result` has the fields that a success always has; None for one without a body.
    `azure` paths are there under Azure's prefixes too, and name the model themselves.
    """

    path: str
    summary: str
    form: Form | None = None
    result: tuple[str, ...] | None = ()
    streams: bool = False
    text: bool = False
    azure: bool = False
    guarded: bool = True


V1: Final = "/v1"
AZURE: Final = "/openai/v1"
DEPLOYMENT: Final = "/openai/deployments/{deployment}"

PATHS: Final = (
    Path(
        path="/chat/completions", summary="Answer a conversation.", form=CHAT,
        result=("id", "object", "created", "model", "choices", "usage"),
        streams=True, azure=True,
    ),
    Path(
        path="/completions", summary="Continue texts.", form=COMPLETION,
        result=("id", "object", "created", "model", "choices", "usage"),
        streams=True, azure=True,
    ),
    Path(
        path="/responses", summary="Make a response.", form=RESPONSE,
        result=("id", "object", "status", "output", "usage"),
        streams=True,
    ),
    Path(
        path="/embeddings", summary="Turn texts into vectors.", form=EMBEDDING,
        result=("object", "data", "model", "usage"), azure=True,
    ),
    Path(path="/models", summary="List the model's names.", result=("object", "data")),
    Path(path="/models/{model}", summary="Tell of one model.", result=("id", "object")),
)  # fmt: skip
"""Below `/v1` and, as far as Azure has them, below its prefixes."""

ROOT_PATHS: Final = (
    Path(
        path="/tokenize", summary="Count tokens.", form=TOKENIZE,
        result=("count", "tokens", "max_model_len"),
    ),
    Path(
        path="/detokenize", summary="Turn tokens into text.", form=DETOKENIZE,
        result=("prompt",),
    ),
    Path(path="/tokenizer_info", summary="Tell of the token rule.",
         result=("tokenizer_class", "eos_token")),
    Path(path="/health", summary="Whether the process answers.", result=None,
         guarded=False),
    Path(path="/ping", summary="The same, by SageMaker's name.", result=None,
         guarded=False),
    Path(path="/ready", summary="Whether a request would be taken now.",
         result=("status",), guarded=False),
    Path(path="/version", summary="What is emulated.", result=("version", "emulated"),
         guarded=False),
    Path(path="/metrics", summary="Metrics for Prometheus.", text=True, guarded=False),
    Path(
        path="/runs/{run}", summary="What was counted for one run of a load generator.",
        result=("run", "server", "statuses", "input_tokens", "output_tokens"),
        guarded=False,
    ),
    Path(path="/openapi.json", summary="This description.", result=("openapi", "paths"),
         guarded=False),
)  # fmt: skip

_NAMED: Final = re.compile(r"\{(\w+)\}")
_ERROR: Final[Fields] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}


def describe(version: str) -> Fields:
    """Return the document; `version` is the server's."""
    paths: Fields = {}
    for path in PATHS:
        paths[V1 + path.path] = _item(path)
        paths[AZURE + path.path] = _item(path)
        if path.azure:
            paths[DEPLOYMENT + path.path] = _item(path, deployment=True)
    for path in ROOT_PATHS:
        paths[path.path] = _item(path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "loadstone mock server",
            "version": version,
            "description": "An emulated inference server behind OpenAI's API.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    }


def _item(path: Path, *, deployment: bool = False) -> Fields:
    """Describe one path, which takes one method."""
    operation: Fields = {
        "summary": path.summary,
        "responses": {"200": _success(path), "4XX": _failure(), "503": _failure()},
        "parameters": [
            *(_in_path(name) for name in _NAMED.findall(path.path)),
            *(_azure_parameters() if deployment else ()),
        ],
    }
    if path.guarded:
        operation["security"] = [{}, {"bearer": []}, {"api-key": []}]
    if path.form is None:
        return {"get": operation}
    schema = path.form.schema()
    if deployment:
        schema["required"] = [name for name in schema["required"] if name != "model"]
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": schema}},
    }
    return {"post": operation}


def _success(path: Path) -> Fields:
    answer: Fields = {"description": "Success."}
    if path.text:
        return answer | {"content": {"text/plain": {"schema": {"type": "string"}}}}
    if path.result is None:
        return answer
    content: Fields = {
        "application/json": {
            "schema": {"type": "object", "required": list(path.result)}
        }
    }
    if path.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return answer | {"content": content}


def _failure() -> Fields:
    schema = {"$ref": "#/components/schemas/Error"}
    return {
        "description": "What is wrong with the request, or why it is not taken.",
        "content": {"application/json": {"schema": schema}},
    }


def _in_path(name: str) -> Fields:
    return {
        "name": name, "in": "path", "required": True, "schema": {"type": "string"}
    }  # fmt: skip


def _azure_parameters() -> list[Fields]:
    version = {
        "name": "api-version", "in": "query", "required": True,
        "schema": {"type": "string", "minLength": 1},
    }  # fmt: skip
    return [_in_path("deployment"), version]
