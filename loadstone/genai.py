"""The words of OpenTelemetry: the GenAI conventions, and ours beside them. Data only.

Two versions of the conventions have different names for the same metrics: v0.1.0 of
open-telemetry/semantic-conventions-genai, and v1.41 of semantic-conventions, where they
lived before and which most dashboards still expect. Which one is spoken is chosen by
the environment variable `LOADSTONE_GENAI_SEMCONV`.

**When is a request issued?** The conventions measure from there, and want a span to
last as long as its duration metric says. In an open loop a request is issued when it is
due, whether or not the client got round to it: its wait for a free place counts, as in
`response_time_s` and `ttft_intended_s`.
"""

from dataclasses import dataclass
from typing import Final, Literal

from .vocabulary import (
    GENAI_DURATION_BOUNDS,
    GENAI_TPOT_BOUNDS,
    GENAI_TTFT_BOUNDS,
    TPOT_BOUNDS,
)

Convention = Literal["0.1.0", "1.41"]
CONVENTIONS: Final[tuple[Convention, ...]] = ("0.1.0", "1.41")
CONVENTION_VARIABLE: Final = "LOADSTONE_GENAI_SEMCONV"

SCOPE: Final = "loadstone"
CLIENT_SERVICE: Final = "loadstone-load"
SERVER_SERVICE: Final = "loadstone-mock"

CHAT: Final = "chat"
"""The operation's name; span names begin with it."""
TEXT: Final = "text"
UNKNOWN: Final = "unknown"
"""Modality of a request that brought no usage; its tokens count as 0."""

PROVIDERS: Final = (
    ("api.openai.com", "openai"),
    (".openai.azure.com", "azure.ai.openai"),
    (".models.ai.azure.com", "azure.ai.inference"),
    (".services.ai.azure.com", "azure.ai.inference"),
)
"""How the host of an endpoint ends, and who that is."""
OTHER_PROVIDER: Final = "openai_compatible"
"""Anyone else who speaks OpenAI's protocol: a vLLM behind a gateway is not `openai`."""

GENAI_TOKENS_BOUNDS: Final = tuple(float(4**i) for i in range(14))
CHUNK_BOUNDS: Final = tuple(sorted({*TPOT_BOUNDS[:7], *GENAI_DURATION_BOUNDS}))
"""The recommended bounds begin at 10 ms, above most of a GB300's gaps: finer ones are
added, none is left out."""


class Attr:
    """Names of attributes."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    REQUEST_MODEL = "gen_ai.request.model"
    MAX_TOKENS = "gen_ai.request.max_tokens"
    STREAM = "gen_ai.request.stream"
    RESPONSE_ID = "gen_ai.response.id"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - a token of text
    MODALITY = "gen_ai.token.modality"
    ERROR = "error.type"
    STATUS = "http.response.status_code"
    ADDRESS = "server.address"
    PORT = "server.port"

    RUN = "loadstone.run"
    REQUEST = "loadstone.request"
    SCENARIO = "loadstone.scenario"
    TENANT = "loadstone.tenant"
    STAGE = "loadstone.stage"
    OUTCOME = "loadstone.outcome"
    WARMUP = "loadstone.warmup"
    ENGINE = "loadstone.engine"
    PREEMPTIONS = "loadstone.preemptions"
    SLOWDOWN = "loadstone.slowdown"


class Part:
    """Names of the spans below a request's."""

    QUEUE = "queue"
    CONNECT = "connect"
    FIRST_TOKEN = "time_to_first_token"  # noqa: S105 - a token of text
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True)
class OtelMetric:
    """A metric with its name in each version, empty where that version has none."""

    now: str
    before: str
    kind: Literal["counter", "histogram"]
    unit: str
    text: str
    bounds: tuple[float, ...] = ()

    def name(self, convention: Convention) -> str:
        """Return its name in `convention`, or nothing."""
        return self.now if convention == "0.1.0" else self.before


def _both(
    name: str, text: str, bounds: tuple[float, ...] = GENAI_DURATION_BOUNDS
) -> OtelMetric:
    return OtelMetric(name, name, "histogram", "s", text, bounds)


def _renamed(
    name: str, text: str, bounds: tuple[float, ...] = GENAI_DURATION_BOUNDS
) -> OtelMetric:
    now, before = f"gen_ai.client.inference.{name}", f"gen_ai.client.operation.{name}"
    return OtelMetric(now, before, "histogram", "s", text, bounds)


class OtelClient:
    """What the load generator exports over OTLP."""

    DURATION = _renamed("duration", "GenAI operation duration, from when it was due.")
    FIRST_CHUNK = _renamed(
        "time_to_first_chunk", "Time to the first chunk, from when it was due."
    )
    PER_CHUNK = _renamed(
        "time_per_output_chunk", "Gap between output chunks.", CHUNK_BOUNDS
    )
    INPUT = OtelMetric(
        "gen_ai.client.inference.usage.input_tokens", "", "counter", "{token}",
        "Input tokens used.",
    )  # fmt: skip
    OUTPUT = OtelMetric(
        "gen_ai.client.inference.usage.output_tokens", "", "counter", "{token}",
        "Output tokens used.",
    )  # fmt: skip
    INPUT_EACH = OtelMetric(
        "gen_ai.client.inference.operation.input_tokens", "gen_ai.client.token.usage",
        "histogram", "{token}", "Input tokens of an operation.", GENAI_TOKENS_BOUNDS,
    )  # fmt: skip
    OUTPUT_EACH = OtelMetric(
        "gen_ai.client.inference.operation.output_tokens", "gen_ai.client.token.usage",
        "histogram", "{token}", "Output tokens of an operation.", GENAI_TOKENS_BOUNDS,
    )  # fmt: skip


class OtelServer:
    """What the mock exports over OTLP; both versions have the same names."""

    DURATION = _both("gen_ai.server.request.duration", "Server request duration.")
    FIRST_TOKEN = _both(
        "gen_ai.server.time_to_first_token", "Time to first token.", GENAI_TTFT_BOUNDS
    )
    PER_TOKEN = _both(
        "gen_ai.server.time_per_output_token", "Time per output token after the first.",
        GENAI_TPOT_BOUNDS,
    )  # fmt: skip


TELEMETRY: Final = OtelMetric(
    "loadstone.telemetry.requests", "loadstone.telemetry.requests", "counter",
    "{request}", "Sampled requests by what became of their spans.",
)  # fmt: skip
FATE: Final = "loadstone.telemetry.fate"
"""Attribute of the above: exported, failed (sent in vain) or dropped (queue full)."""
