"""The load generator's options: a table for `loadstone run`, Locust's CLI and form."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loadstone.catalog.plans import plan_names
from loadstone.errors import UsageError
from loadstone.traffic.arrivals import PROCESSES, Arrivals
from loadstone.traffic.plan import (
    APIS,
    DEFAULT_CAP,
    DEFAULT_SCENARIO,
    ON_429,
    Plan,
)
from loadstone.traffic.profile import PROFILES, Profile
from loadstone.traffic.window import EVER, Window
from loadstone.units import Seconds, parse_duration

from .connection import Timeouts
from .pages import AUTO, metrics_url
from .plans import find_plan
from .proxy import FROM_ENVIRONMENT, Proxy
from .target import API_VERSION, ENTRA_SCOPE, HEADERS

TELL_FD: Final = "LOADSTONE_TELL_FD"
"""Names the descriptor on which `loadstone run` hears from Locust how the run goes."""

Value = str | None
_SECRET: Final = re.compile(r"://.*[@?]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, given as text. `setting` is the plan's field that it sets, if any."""

    flag: str
    text: str
    default: str = ""
    setting: str | None = None
    read: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    metavar: str = "TEXT"
    in_form: bool = False
    """Whether Locust's start form shows it."""

    @property
    def name(self) -> str:
        """The option as an attribute of Locust's parsed options."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that plain Locust reads it from."""
        return f"LOADSTONE_{self.name.upper()}"

    def parse(self, text: str) -> Any:
        """Read a value; raises `UsageError` naming the option."""
        try:
            return self.read(text)
        except (ValueError, UsageError) as wrong:
            number = "whole number" if self.read is int else "number"
            # A user or a query of a URL may be a secret, and an error is printed.
            shown = "this URL" if _SECRET.search(text) else text
            raise UsageError(
                f"{self.flag} {shown}: {getattr(wrong, 'message', f'not a {number}')}",
                hint=getattr(wrong, "hint", ""),
            ) from None


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UsageError("must be true or false")
    return text.lower() == "true"


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 1 << 16:
        raise UsageError("a port is 0 to 65535")
    return port


def _size(text: str) -> float:
    size = float(text)
    if not 0 <= size < float("inf"):
        raise UsageError("a size is 0 or more")
    return size


def _checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Keep a text that `parse` can read as it is: the plan has it in words."""

    def read(text: str) -> str:
        parse(text)
        return text

    return read


def _proxy(text: str) -> str:
    if text != FROM_ENVIRONMENT:
        Proxy.parse(text)
    return text


def _limit(text: str) -> float:
    limit = float(text)
    if not 0 < limit < float("inf"):
        raise UsageError("a limit is a number above 0")
    return limit


def _chars(text: str) -> float | None:
    """Read characters per token; None for `auto`."""
    if text == "auto":
        return None
    chars = float(text)
    if not 0.5 <= chars <= 20:
        raise UsageError("a token has 0.5 to 20 characters", hint="such as 4, or auto")
    return chars


def _metrics(text: str) -> str:
    for url in text.split(","):
        if url != AUTO:
            metrics_url(url)
    return text


def _patience(text: str) -> Seconds:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise UsageError("a timeout is longer than that", hint="such as 10s")
    return seconds


_TIMEOUTS: Final = {
    "connect": "fail a request whose connection (name, TCP, TLS) takes longer",
    "first_byte": "fail a request whose answer's body has not begun by then",
    "idle": "fail an answer that pauses for longer",
    "total": "fail a request that takes longer",
}
"""The fields of `Timeouts`, each of which is an option."""

OPTIONS: Final = (
    Option(flag="--scenario", default=DEFAULT_SCENARIO, metavar="PLAN", in_form=True,
           text=f"what arrives: {', '.join(plan_names())}, or a plan's file (TOML)"),
    Option(flag="--rate", setting="rate", read=float, metavar="REQ/S", in_form=True,
           text="open loop: requests per second, whatever the answers do;"
                " empty: closed loop"),
    Option(flag="--duration", setting="duration_s", read=parse_duration, default="60s",
           metavar="TIME", in_form=True, text="how long requests arrive (30s, 5m)"),
    Option(flag="--trace", setting="trace", metavar="FILE", in_form=True,
           text="replay arrivals and lengths of a trace: Azure's CSV"
                " (TIMESTAMP,ContextTokens,GeneratedTokens), Mooncake's JSON lines, or"
                " the requests.jsonl of a run"),
    Option(flag="--trace-from", setting="trace_from_s", read=parse_duration,
           default="0s", metavar="TIME", text="leave out what was recorded before"),
    Option(flag="--trace-to", setting="trace_to_s", read=parse_duration,
           metavar="TIME", text="leave out what was recorded from then on"),
    Option(flag="--trace-sample", setting="trace_sample", read=float, metavar="X",
           text="replay this share of the trace's requests, chosen by the seed"),
    Option(flag="--skip-bad-rows", setting="skip_bad_rows", read=_boolean,
           default="false", metavar="BOOL",
           text="leave out lines of a trace or of prompts that cannot be read, and"
                " count them, instead of refusing the file"),
    Option(flag="--speedup", setting="speedup", read=float, default="1", metavar="X",
           in_form=True, text="replay the trace this many times as fast"),
    Option(flag="--arrivals", setting="arrivals", default="poisson", in_form=True,
           read=_checked(Arrivals.parse),
           metavar="NAME[:KEY=VALUE,...]",
           text="how arrivals of an open loop cluster: "
                + "; ".join(f"{n} ({p.text})" for n, p in PROCESSES.items())),
    Option(flag="--rate-profile", setting="profile", default="flat", in_form=True,
           read=_checked(Profile.parse),
           metavar="NAME[:FACTORS]",
           text="how the rate of an open loop goes over the duration, as factors of"
                " --rate: " + "; ".join(PROFILES.values())),
    Option(flag="--think", setting="think_s", read=parse_duration, default="0s",
           metavar="TIME", in_form=True,
           text="closed loop: mean pause of a user between answer and next request"),
    Option(flag="--drain", setting="drain_s", read=parse_duration, default="60s",
           metavar="TIME",
           text="how long running requests may finish after the last arrival"),
    Option(flag="--warmup", setting="warmup_s", read=parse_duration, default="0s",
           metavar="TIME", text="requests due in this time are not in the percentiles"),
    Option(flag="--window", read=_checked(Window.parse), metavar="FROM:TO",
           text="only requests due in this stretch of the run (30s:2m) are in the"
                " percentiles and objectives; empty: all, and a steady window is looked"
                " for"),
    Option(flag="--seed", setting="seed", read=int, default="0", metavar="N",
           in_form=True, text="same seed, same arrivals and lengths"),
    Option(flag="--salt", setting="salt", metavar="TEXT",
           text="goes into every made prompt, so that what a server has cached of"
                " other runs is no help; fresh: another one each time"),
    Option(flag="--model", setting="model", metavar="NAME", in_form=True,
           text="model to ask for; empty: the first that the endpoint lists"),
    Option(flag="--ignore-eos", setting="ignore_eos", read=_boolean, default="true",
           metavar="BOOL",
           text="ask for exactly the planned output length (vLLM's ignore_eos)"),
    Option(flag="--api", setting="api", default="chat", choices=APIS,
           metavar="NAME", text="which of OpenAI's endpoints"),
    Option(flag="--continuous-usage", setting="continuous_usage", read=_boolean,
           default="false", metavar="BOOL",
           text="ask for token counts with every event (vLLM, SGLang)"),
    Option(flag="--on-429", setting="on_429", default="count", choices=ON_429,
           metavar="WHAT",
           text="a throttled request counts as it is, or is tried again as"
                " Retry-After says"),
    Option(flag="--max-retries", setting="max_retries", read=int, default="3",
           metavar="N", text="how often a throttled request is tried again"),
    Option(flag="--chars-per-token", setting="chars_per_token", read=_chars,
           default="auto", metavar="X",
           text="how much text makes a token at the endpoint; `auto` fits it on a few"
                " short requests before the run (the mock's rule is known)"),
    Option(flag="--prices", setting="price", metavar="NAME|FILE",
           text="price in the catalog, or a price list (TOML); empty: the one of the"
                " mock's preset"),
    Option(flag="--vms", setting="vms", read=int, metavar="N",
           text="how many VMs are paid for; empty: as many as the mock says it is"),
    Option(flag="--slo", metavar="FILE", text="objectives to judge the run by (TOML)"),
    Option(flag="--api-key-env", metavar="VAR",
           text="environment variable that holds the endpoint's key"),
    Option(flag="--api-key-file", metavar="FILE",
           text="file that holds the endpoint's key; an empty one is no key"),
    Option(flag="--api-key-cmd", metavar="COMMAND",
           text="command that prints the key, run without a shell, and again when the"
                " key is refused or about to expire"),
    Option(flag="--auth", choices=(AUTO, *HEADERS), default=AUTO, metavar="HOW",
           text="how the key is shown; `entra` gets tokens from Entra ID (extra"
                " `azure`); auto: bearer, or api-key for an Azure deployment"),
    Option(flag="--entra-scope", default=ENTRA_SCOPE, metavar="SCOPE",
           text="what Entra ID's token is for"),
    Option(flag="--azure-deployment", metavar="NAME",
           text="a deployment on Azure OpenAI, whose paths are used"),
    Option(flag="--azure-api-version", metavar="VERSION",
           text=f"version of Azure's API; `v1`: the one without dates; empty:"
                f" {API_VERSION}"),
    Option(flag="--max-usd", read=_limit, metavar="USD",
           text="send no more requests once so much is spent"),
    Option(flag="--max-requests", read=_limit, metavar="N",
           text="send no more requests than this"),
    Option(flag="--max-tokens", read=_limit, metavar="N",
           text="send no more requests once so many tokens were used, input and"
                " output"),
    Option(flag="--server-metrics", read=_metrics, metavar="URL[,URL...]",
           text="watch the server's own metrics while the run goes: Prometheus pages"
                " of vLLM, SGLang, TensorRT-LLM, NIM or DCGM; `auto`: look for them"
                " at the endpoint"),
    Option(flag="--ca-file", metavar="FILE",
           text="certificate authority of an https endpoint"),
    Option(flag="--proxy", read=_proxy, metavar="URL",
           text="send through this HTTP proxy; `env`: through the one that"
                " HTTPS_PROXY, http_proxy and NO_PROXY name"),
    *(Option(flag=f"--{name.replace('_', '-')}-timeout", read=_patience,
             default=f"{getattr(Timeouts(), name):g}s", metavar="TIME", text=text)
      for name, text in _TIMEOUTS.items()),
    Option(flag="--store", metavar="STORE",
           text="what a plan with retrieval searches: a file of `loadstone index`, or"
                " postgresql://...; empty: loadstone's own sample"),
    Option(flag="--questions", metavar="QUESTIONS",
           text="what it asks: JSON lines with `question` and, for the recall,"
                " `documents`; `sample` is the sample's own"),
    Option(flag="--passages", read=int, metavar="N",
           text="passages that a prompt is given; empty: 5"),
    Option(flag="--embeddings-host", metavar="URL",
           text="endpoint that embeds the questions; empty: the one that answers"),
    Option(flag="--embeddings-model", metavar="NAME",
           text="model that embeds the questions; empty: the one that answers"),
    Option(flag="--selfcheck", metavar="FILE",
           text="judge the load by this profile of `loadstone selfcheck`; without it"
                " by the user's own, if there is one"),
    Option(flag="--out", default="runs", metavar="DIR", text="where run folders go"),
    Option(flag="--collect-mb", read=_size, default="64", metavar="MB",
           text="rows of a worker whose disk the master does not see are carried over"
                " at the end if they are no larger; 0 leaves them where they are"),
    Option(flag="--metrics-port", read=_port, metavar="PORT",
           text="serve Prometheus metrics on this port of 127.0.0.1;"
                " 0 takes a free one"),
)  # fmt: skip


_ONLY: Final = {
    "speedup": ("trace", "it is for a --trace"),
    "trace_from_s": ("trace", "it is for a --trace"),
    "trace_to_s": ("trace", "it is for a --trace"),
    "trace_sample": ("trace", "it is for a --trace"),
    "arrivals": ("open", "it is for a --rate"),
    "profile": ("open", "it is for a --rate"),
    "think_s": ("closed", "it is for a closed loop, --users without --rate or --trace"),
}
"""Settings that only one kind of loop can use; others would ignore them."""
_PLAIN: Final = {setting: getattr(Plan(), setting) for setting in _ONLY}


def read_options(given: Mapping[str, Value]) -> dict[str, Any]:
    """Read all options by name from text; an empty one is its default, or else None."""
    values: dict[str, Any] = {}
    for option in OPTIONS:
        text = given.get(option.name)
        text = ("" if text is None else str(text).strip()) or option.default
        values[option.name] = option.parse(text) if text else None
    return values


def as_given(values: Mapping[str, Any]) -> dict[str, str]:
    """Return read options as the text that `read_options` reads again.

    Without what was not given, and without what a plan's own tables say: their file may
    be gone by then.
    """
    return {
        name: str(value)
        for name, value in values.items()
        if value is not None and name not in ("scenario", "slo")
    }


def hosts_of(text: str) -> tuple[str, ...]:
    """Read endpoints with commas between them, in the order they get requests in.

    Raises `UsageError` for one that is empty or there twice.
    """
    hosts = tuple(host.strip() for host in text.split(","))
    if len(hosts) > 1 and ("" in hosts or len(set(hosts)) < len(hosts)):
        raise UsageError(
            f"hosts must be different and not empty: {text}",
            hint="give --host once for each",
        )
    return hosts


def timeouts_of(values: Mapping[str, Any]) -> Timeouts:
    """Return how long to wait for what, of read options."""
    return Timeouts(**{name: values[f"{name}_timeout"] for name in _TIMEOUTS})


def window_of(values: Mapping[str, Any]) -> Window:
    """Return which stretch of the run is measured, of read options."""
    return Window.parse(values["window"]) if values["window"] else EVER


def plan_of(
    values: Mapping[str, Any], *, host: str, users: int | None, **more: Any
) -> Plan:
    """Make a plan of read options; `users` is Locust's own count, None for the default.

    `host` may be several, with commas between them.
    `more` are settings without an option here. Raises `UsageError` for what cannot be
    run.
    """
    settings = {
        option.setting: values[option.name]
        for option in OPTIONS
        if option.setting and values[option.name] is not None
    } | {name: value for name, value in more.items() if value is not None}
    closed = not {"rate", "trace", "offline"} & set(settings)
    if closed and users is None:
        raise UsageError(
            "nothing says how much load: no rate, no trace and no users",
            hint="give --rate 10 (open loop), --users 20 (closed loop) or --trace FILE",
        )
    users = DEFAULT_CAP if users is None else users
    found = find_plan(values["scenario"])
    plan = Plan(
        scenario=found.name, classes=found.classes, tenants=found.tenants,
        hosts=hosts_of(host), users=users, **settings,
    )  # fmt: skip
    for setting, (loop, why) in _ONLY.items():
        if plan.loop != loop and getattr(plan, setting) != _PLAIN[setting]:
            flag = next(o.flag for o in OPTIONS if o.setting == setting)
            raise UsageError(f"{flag} has no meaning here: {why}")
    return plan
