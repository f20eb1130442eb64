"""Options: each is read from text, wrong values name their flag, loads are plans."""

from collections.abc import Callable
from typing import Any

import pytest

from loadgen.connection import Timeouts
from loadgen.options import OPTIONS, Option, plan_of, read_options, timeouts_of
from loadgen.target import ENTRA_SCOPE
from loadstone.catalog.plans import load_plan, plan_names
from loadstone.errors import UsageError
from loadstone.traffic.plan import DEFAULT_CAP, Plan

BY_FLAG = {option.flag: option for option in OPTIONS}

# Text as a user writes it, what is read, and a wrong text (None: any text will do).
TEXTS: dict[str, tuple[str, Any, str | None]] = {
    "--scenario": ("mlperf", "mlperf", None),
    "--salt": ("fresh", "fresh", None),
    "--trace-from": ("10s", 10.0, "soon"),
    "--trace-to": ("1m", 60.0, "later"),
    "--trace-sample": ("0.5", 0.5, "half"),
    "--skip-bad-rows": ("true", True, "yes"),
    "--rate": ("12.5", 12.5, "fast"),
    "--duration": ("1m30s", 90.0, "soon"),
    "--trace": ("t.csv", "t.csv", None),
    "--speedup": ("4", 4.0, "x4"),
    "--arrivals": ("constant", "constant", "weibull"),
    "--rate-profile": ("ramp:0..1", "ramp:0..1", "ramp:up"),
    "--think": ("500ms", 0.5, "-1s"),
    "--drain": ("0", 0.0, "5 s"),
    "--warmup": ("2s", 2.0, ":"),
    "--window": ("30s:", "30s:", "2m:1m"),
    "--seed": ("-7", -7, "1.5"),
    "--model": ("llama", "llama", None),
    "--ignore-eos": ("False", False, "no"),
    "--prices": ("list", "list", None),
    "--vms": ("3", 3, "three"),
    "--slo": ("slo.toml", "slo.toml", None),
    "--api-key-env": ("KEY", "KEY", None),
    "--api-key-file": ("key.txt", "key.txt", None),
    "--api": ("responses", "responses", None),
    "--continuous-usage": ("true", True, "yes"),
    "--on-429": ("retry", "retry", None),
    "--max-retries": ("5", 5, "many"),
    "--chars-per-token": ("3.5", 3.5, "0.1"),
    "--api-key-cmd": ("vault read key", "vault read key", None),
    "--auth": ("api-key", "api-key", None),
    "--entra-scope": (
        "https://ai.azure.com/.default",
        "https://ai.azure.com/.default",
        None,
    ),
    "--azure-deployment": ("gpt", "gpt", None),
    "--azure-api-version": ("v1", "v1", None),
    "--max-usd": ("2.5", 2.5, "0"),
    "--max-requests": ("100", 100.0, "-1"),
    "--max-tokens": ("1e6", 1e6, "inf"),
    "--server-metrics": (
        "auto,http://h:9400/metrics",
        "auto,http://h:9400/metrics",
        "http://u:p@h/metrics",
    ),
    "--ca-file": ("ca.pem", "ca.pem", None),
    "--proxy": ("http://proxy:3128", "http://proxy:3128", "http://u:p@proxy"),
    "--connect-timeout": ("2s", 2.0, "0"),
    "--first-byte-timeout": ("1m", 60.0, "0s"),
    "--idle-timeout": ("500ms", 0.5, "-1s"),
    "--total-timeout": ("1h", 3600.0, "never"),
    "--store": ("corpus.db", "corpus.db", None),
    "--questions": ("q.jsonl", "q.jsonl", None),
    "--passages": ("3", 3, "few"),
    "--embeddings-host": ("http://e:1", "http://e:1", None),
    "--embeddings-model": ("bge", "bge", None),
    "--selfcheck": ("machine.json", "machine.json", None),
    "--collect-mb": ("2.5", 2.5, "-1"),
    "--out": ("elsewhere", "elsewhere", None),
    "--metrics-port": ("0", 0, "http"),
}


def name_of(flag: str) -> str:
    """Return the key under which an option is given and read."""
    return BY_FLAG[flag].name


def test_every_option_is_tried_here() -> None:
    """A new one has to be added above; names are attributes, and none is used twice."""
    assert set(TEXTS) == set(BY_FLAG)
    assert len(OPTIONS) == len(BY_FLAG)
    assert all(option.name.isidentifier() for option in OPTIONS)
    assert name_of("--api-key-file") == "api_key_file"


@pytest.mark.parametrize("flag", TEXTS)
def test_option_is_read_from_text(flag: str) -> None:
    """With blanks around it too; the type is the setting's."""
    text, value, _ = TEXTS[flag]
    for given in (text, f"  {text} "):
        found = read_options({name_of(flag): given})[name_of(flag)]
        assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("flag", [flag for flag, (_, _, bad) in TEXTS.items() if bad])
def test_wrong_text_names_the_flag(flag: str) -> None:
    """And repeats what was given."""
    wrong = TEXTS[flag][2]
    with pytest.raises(UsageError) as caught:
        read_options({name_of(flag): wrong})
    shown = "this URL" if wrong and "@" in wrong else wrong
    assert caught.value.message.startswith(f"{flag} {shown}: ")


@pytest.mark.parametrize(
    ("flag", "text", "why", "hint"),
    [
        ("--rate", "fast", "not a number", ""),
        ("--seed", "1.5", "not a whole number", ""),
        ("--ignore-eos", "no", "must be true or false", ""),
        ("--drain", "5 s", "'5 s' is not a duration", "write it as 30s"),
    ],
)
def test_wrong_text_is_explained(flag: str, text: str, why: str, hint: str) -> None:
    """By what the option expects, with its hint."""
    with pytest.raises(UsageError) as caught:
        BY_FLAG[flag].parse(text)
    assert caught.value.message == f"{flag} {text}: {why}"
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    "given", [{}, {name_of(f): "" for f in TEXTS}], ids=["none", "empty"]
)
def test_defaults_where_nothing_or_an_empty_text_is_given(
    given: dict[str, str],
) -> None:
    """As a form that is sent with its fields empty; the rest is None."""
    values = read_options(given)
    assert {name: value for name, value in values.items() if value is not None} == {
        "scenario": "azure-chat",
        "duration": 60.0,
        "trace_from": 0.0,
        "skip_bad_rows": False,
        "speedup": 1.0,
        "arrivals": "poisson",
        "rate_profile": "flat",
        "think": 0.0,
        "drain": 60.0,
        "warmup": 0.0,
        "seed": 0,
        "ignore_eos": True,
        "api": "chat",
        "continuous_usage": False,
        "on_429": "count",
        "max_retries": 3,
        "auth": "auto",
        "entra_scope": ENTRA_SCOPE,
        "connect_timeout": 10.0,
        "first_byte_timeout": 300.0,
        "idle_timeout": 120.0,
        "total_timeout": 1800.0,
        "out": "runs",
        "collect_mb": 64.0,
    }
    assert set(values) == {option.name for option in OPTIONS}


def test_defaults_are_those_of_a_plan() -> None:
    """So a plan file and the command line mean the same by saying nothing."""
    plan = plan_of(read_options({"rate": "1"}), host="h", users=None)
    classes = load_plan("azure-chat").classes
    assert plan == Plan(rate=1.0, hosts=("h",), classes=classes)


def test_timeouts_are_the_clients() -> None:
    """Each option sets its own, and without any they are the client's defaults."""
    assert timeouts_of(read_options({})) == Timeouts()
    given = {"idle_timeout": "1s", "total_timeout": "2s", "connect_timeout": "3s"}
    made = timeouts_of(read_options(given | {"first_byte_timeout": "4s"}))
    assert made == Timeouts(connect=3.0, first_byte=4.0, idle=1.0, total=2.0)


def test_settings_are_fields_of_a_plan() -> None:
    """Each option that sets one sets another one."""
    settings = [option.setting for option in OPTIONS if option.setting]
    assert len(settings) == len(set(settings))
    assert set(settings) <= set(Plan.__dataclass_fields__)


OF_A_TRACE = ("--trace", "--speedup", "--trace-from", "--trace-to", "--trace-sample")


def given_plan(users: int | None = None, **given: str) -> Plan:
    """Return the plan of options given as text."""
    return plan_of(read_options(given), host="http://h", users=users)


def test_every_setting_reaches_the_plan() -> None:
    """Under the name that the plan has for it."""
    given = {
        name_of(flag): text
        for flag, (text, _, _) in TEXTS.items()
        if flag not in (*OF_A_TRACE, "--rate", "--think")
    }
    assert given_plan(users=9, rate="12.5", **given) == Plan(
        scenario="mlperf", hosts=("http://h",), model="llama", rate=12.5,
        arrivals="constant", profile="ramp:0..1", users=9, duration_s=90.0,
        drain_s=0.0, warmup_s=2.0, classes=load_plan("mlperf").classes,
        seed=-7, ignore_eos=False, price="list", vms=3, salt="fresh",
        skip_bad_rows=True, api="responses", on_429="retry", max_retries=5,
        continuous_usage=True, chars_per_token=3.5,
    )  # fmt: skip
    replay = given_plan(trace="t.csv", speedup="4")
    assert (replay.trace, replay.speedup) == ("t.csv", 4.0)
    assert given_plan(users=9, think="500ms").think_s == 0.5


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"rate": "5", "speedup": "9"}, "--speedup"),
        ({"rate": "5", "think": "5s"}, "--think"),
        ({"trace": "t.csv", "think": "5s"}, "--think"),
        ({"trace": "t.csv", "arrivals": "constant"}, "--arrivals"),
        ({"users": 5, "arrivals": "constant"}, "--arrivals"),
        ({"users": 5, "speedup": "2"}, "--speedup"),
    ],
)
def test_what_the_loop_cannot_use_is_refused(given: dict[str, Any], flag: str) -> None:
    """An option is never accepted and ignored."""
    with pytest.raises(UsageError, match=f"{flag} has no meaning here"):
        given_plan(**given)


@pytest.mark.parametrize(
    ("make", "loop", "users"),
    [
        (lambda: given_plan(rate="5"), "open", DEFAULT_CAP),
        (lambda: given_plan(users=7, rate="5"), "open", 7),
        (lambda: given_plan(trace="t.csv"), "trace", DEFAULT_CAP),
        (lambda: given_plan(users=7), "closed", 7),
    ],
)
def test_which_loop_and_how_many(
    make: Callable[[], Plan], loop: str, users: int
) -> None:
    """A rate or a trace is an open loop that users cap; users alone, a closed one."""
    plan = make()
    assert (plan.loop, plan.users) == (loop, users)


@pytest.mark.parametrize(
    "given", [{}, {"duration": "5m"}, {"think": "2s"}, {"rate": " "}]
)
def test_load_must_be_said(given: dict[str, str]) -> None:
    """No rate, no trace and no users is wrong usage, and the hint has all three."""
    with pytest.raises(UsageError, match="nothing says how much load") as caught:
        given_plan(**given)
    for flag in ("--rate", "--users", "--trace"):
        assert flag in caught.value.hint


@pytest.mark.parametrize(
    ("users", "given", "why"),
    [
        (None, {"rate": "1", "trace": "t.csv"}, "--trace or --rate, not both"),
        (5, {"rate": "1", "trace": "t.csv"}, "--trace or --rate, not both"),
        (0, {}, "users must be at least 1, not 0"),
        (-1, {"rate": "1"}, "users must be at least 1, not -1"),
        (None, {"rate": "0"}, "rate must be at least 1e-09, not 0"),
        (None, {"rate": "nan"}, "rate must be at least"),
        (None, {"rate": "inf"}, "rate must be at least"),
        (None, {"rate": "1", "vms": "0"}, "vms must be at least 1"),
        (None, {"rate": "1", "scenario": "dance"}, "no plan 'dance'"),
        (None, {"rate": "1", "arrivals": "dance"}, "no arrival process 'dance'"),
        (None, {"rate": "1", "max_retries": "-1"}, "max_retries must be at least 0"),
        (None, {"rate": "1", "warmup": "60s"}, "a warm-up of 60 s leaves nothing"),
    ],
)
def test_loads_that_cannot_be_are_refused(
    users: int | None, given: dict[str, str], why: str
) -> None:
    """Before anything is started."""
    with pytest.raises(UsageError, match=why):
        given_plan(users=users, **given)


@pytest.mark.parametrize("name", plan_names())
def test_every_built_in_plan_is_a_scenario(name: str) -> None:
    """By its name, with its classes."""
    plan = given_plan(rate="1", scenario=name)
    assert (plan.scenario, plan.classes) == (name, load_plan(name).classes)


def test_choices_are_what_a_plan_accepts() -> None:
    """The form offers no more and no less."""
    for option in OPTIONS:
        for choice in option.choices if option.setting else ():
            plan = given_plan(**({"rate": "1"} | {option.name: choice}))
            assert getattr(plan, option.setting or "") == choice
    assert {"--api", "--on-429", "--auth"} <= {
        option.flag for option in OPTIONS if option.choices
    }


def test_option_is_named_as_an_attribute() -> None:
    """As Locust's parser and click do."""
    assert Option(flag="--a-long-name", text="").name == "a_long_name"
