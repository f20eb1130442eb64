"""Tools and output formats: what a request wants beside plain text."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .openai_error import ApiError
from .rules import BOOL, OBJECT, TEXT, Form, invalid, missing, one_of

_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
MAX_TOOLS: Final = 128
"""Functions in one request, as at OpenAI."""
_FUNCTION: Final = Form(
    required=("name",),
    rules={"name": TEXT, "description": TEXT, "parameters": OBJECT, "strict": BOOL},
)
_JSON_SCHEMA: Final = Form(
    required=("name",),
    rules={"name": TEXT, "description": TEXT, "schema": OBJECT, "strict": BOOL},
)
_FORMAT: Final = Form(
    required=("type",),
    rules={"type": one_of("text", "json_object", "json_schema")},
)
NO_PARAMETERS: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
ANY_OBJECT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "reasons": {"type": "array", "items": {"type": "string"}},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["answer", "reasons", "confidence"],
}
"""What `json_object` gets: OpenAI promises valid JSON and no more."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called; `where` is the path of its schema."""

    name: str
    parameters: Mapping[str, Any]
    where: str


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions that may be called, and whether they must be.

    `named` is a function that the client insists on; clients are then told `stop` as
    the reason, as OpenAI does.
    """

    choice: tuple[Tool, ...] = ()
    forced: bool = False
    named: bool = False
    parallel: bool = True


NO_TOOLS: Final = Tools()


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """The JSON that the content has to be; `where` is the path of its schema."""

    schema: Mapping[str, Any]
    where: str


def read_tools(payload: Mapping[str, Any], *, nested: bool) -> Tools:
    """Read `tools`, `tool_choice` and `parallel_tool_calls`; raises `ApiError`.

    `nested` says whether a function stands in an object of its own, as in chat, or
    right in the tool, as in responses.
    """
    listed = payload.get("tools") or []
    if len(listed) > MAX_TOOLS:
        raise invalid("tools", f"at most {MAX_TOOLS} tools", listed)
    tools = tuple(
        _tool(tool, f"tools[{i}]", nested=nested) for i, tool in enumerate(listed)
    )
    choice = payload.get("tool_choice") or "auto"
    parallel = payload.get("parallel_tool_calls") is not False
    if isinstance(choice, dict):
        name = _chosen(choice, nested=nested)
        tools = tuple(tool for tool in tools if tool.name == name)
        if not tools:
            raise invalid("tool_choice", "the name of one of the tools", name)
        return Tools(tools[:1], forced=True, named=True, parallel=False)
    if choice == "required" and not tools:
        raise ApiError(
            "'tool_choice' is 'required', but there are no 'tools'.",
            param="tool_choice",
            code="invalid_value",
        )
    if choice == "none":
        return NO_TOOLS
    return Tools(tools, forced=choice == "required", parallel=parallel)


def tools_text(payload: Mapping[str, Any]) -> list[str]:
    """Return what the tools add to the prompt: templates write them out as JSON."""
    tools = payload.get("tools")
    return [json.dumps(tools, separators=(",", ":"))] if tools else []


def read_format(form: object, where: str) -> OutputSchema | None:
    """Read a `response_format` of chat or a `text.format`; raises `ApiError`."""
    if form is None:
        return None
    if not isinstance(form, dict):
        raise invalid(where, "an object", form)
    _FORMAT.check(form, f"{where}.")
    if form["type"] == "text":
        return None
    if form["type"] == "json_object":
        return OutputSchema(ANY_OBJECT, where)
    inner = form.get("json_schema")
    if inner is not None or where == "response_format":
        where = f"{where}.json_schema"
        if not isinstance(inner, dict):
            raise invalid(where, "an object with a name and a schema", inner)
        form = inner
    _JSON_SCHEMA.check(form, f"{where}.")
    if form.get("schema") is None:
        raise missing(f"{where}.schema")
    return OutputSchema(form["schema"], f"{where}.schema")


def _tool(tool: Mapping[str, Any], where: str, *, nested: bool) -> Tool:
    kind = tool.get("type")
    if kind != "function":
        if isinstance(kind, str):
            raise ApiError.not_modelled(where, "only functions can be called here")
        raise invalid(f"{where}.type", "'function'", kind)
    function = tool
    if nested:
        function = tool.get("function") or {}
        where = f"{where}.function"
        if not isinstance(function, dict):
            raise invalid(where, "an object", function)
    _FUNCTION.check(function, f"{where}.")
    name = function["name"]
    if not _NAME.fullmatch(name):
        raise invalid(f"{where}.name", "up to 64 letters, digits, _, - or .", name)
    parameters = function.get("parameters") or NO_PARAMETERS
    return Tool(name, parameters, f"{where}.parameters")


def _chosen(choice: Mapping[str, Any], *, nested: bool) -> object:
    kind = choice.get("type")
    if kind != "function":
        if kind in ("allowed_tools", "custom"):
            raise ApiError.not_modelled("tool_choice")
        raise invalid("tool_choice.type", "'function'", kind)
    holder = choice.get("function") if nested else choice
    name = holder.get("name") if isinstance(holder, dict) else None
    if not isinstance(name, str):
        raise invalid("tool_choice", "the name of a function", name)
    return name
