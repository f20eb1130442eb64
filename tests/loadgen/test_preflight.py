"""`run --check`: each thing that can be wrong is told with cause, remedy and code."""

import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from quirks import MODELS, PER_TOKEN, TEMPLATE, Quirk, endpoint_with
from scripted import refusing_url

from loadgen import client as client_module
from loadgen.client import Endpoint
from loadgen.diagnose import code_of_exchange, nearest
from loadgen.exchange import Exchange
from loadgen.findings import FINDINGS, fault, table
from loadgen.probe import probe
from loadstone.cli.main import main
from loadstone.errors import ExitCode, LoadstoneError
from loadstone.traffic.plan import Plan

DOCS = Path(__file__).parents[2] / "docs" / "real-endpoints.md"
KEY = "sk-0123456789-right"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority that no system knows."""
    return Authority(tmp_path_factory.mktemp("ca"))


def check(
    capsys: pytest.CaptureFixture[str], url: str, *options: str
) -> tuple[int, dict[str, Any], str]:
    """Run a check as the command line does: its exit code, JSON and words."""
    told = []
    for form in ("--json", None):
        args = ["run", "chat", "--rate", "2", "--duration", "5s", "--check"]
        args += ["--host", url, *options, *([form] if form else [])]
        with pytest.raises(SystemExit) as ended:
            main(args)
        told.append((ended.value.code, capsys.readouterr()))
    assert told[0][0] == told[1][0]
    document: dict[str, Any] = json.loads(told[0][1].out)
    words = " ".join((told[1][1].out + told[1][1].err).split())
    return int(str(told[0][0])), document, words


@dataclass
class Case:
    """An endpoint, how it is asked, and what the check has to say."""

    code: str
    quirk: Quirk = field(default_factory=Quirk)
    options: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    tls: Callable[[Authority], ssl.SSLContext] | None = None
    url: Callable[[str], str] = str


CASES = {
    "wrong key": Case("auth", Quirk(key=KEY), ("--api-key-env", "WRONG_KEY"),
                      ("refused the key", "--auth")),
    "no key": Case("auth_missing", Quirk(key=KEY), (), ("--api-key-env",)),
    "wrong model": Case("model_unknown", options=("--model", "llama-3.3-70b"),
                        words=("has no model 'llama-3.3-70b'", MODELS[0])),
    "wrong url": Case("path_unknown", url=lambda url: url + "/api/v2",
                      words=("--host", "/v1")),
    "http behind https": Case(
        "http_to_https", tls=lambda a: a.server("127.0.0.1"),
        url=lambda url: url.replace("https", "http"), words=("https://",),
    ),
    "https to http": Case(
        "https_to_http", url=lambda url: url.replace("http", "https"),
        words=("write http://",),
    ),
    "expired certificate": Case(
        "tls_expired", tls=lambda a: a.server("127.0.0.1", days=(-3, -2)),
        words=("expired", "renew"),
    ),
    "certificate of tomorrow": Case(
        "tls_not_yet_valid", tls=lambda a: a.server("127.0.0.1", days=(2, 3)),
    ),
    "certificate for another": Case(
        "tls_wrong_host", tls=lambda a: a.server("other.test"), words=("another name",),
    ),
    "usage missing": Case("no_usage", Quirk(usage=False), words=("include_usage",)),
    "length ignored": Case("length_ignored", Quirk(tokens=90), words=("max_tokens",)),
    "length not held": Case("length_not_held", Quirk(tokens=12)),
    "all at the end": Case("buffered", Quirk(buffered=True), words=("proxy",)),
    "one piece": Case("not_streaming", Quirk(stream=False), words=("gateway",)),
    "429, when to come back": Case(
        "throttled", Quirk(status=429, headers={"Retry-After": "17"}),
        words=("after 17 s", "quota"),
    ),
    "429": Case("throttled_no_hint", Quirk(status=429), words=("wait a minute",)),
    "redirect": Case(
        "redirected", Quirk(status=308, headers={"Location": "https://b/x?k=v"}),
        words=("leads to https://b/x",),
    ),
    "forbidden": Case("forbidden", Quirk(key=KEY, status=403),
                      ("--api-key-env", "RIGHT_KEY")),
    "refused": Case("request_refused", Quirk(status=400, message="prompt too long"),
                    words=("prompt too long",)),
    "broken": Case("server_error", Quirk(status=503, message="loading"),
                   words=("loading",)),
    "closed": Case("closed", Quirk(closes=True)),
    "broken stream": Case("stream_error", Quirk(broken="out of KV"),
                          words=("out of KV",)),
    "no token": Case("empty_answer", Quirk(tokens=0, usage=False)),
    "clock": Case("clock_skew", Quirk(skew_s=-120), words=("s behind",)),
    "unknown field": Case("field_refused", Quirk(unknown=("ignore_eos", "min_tokens")),
                          words=("refuses ignore_eos, min_tokens",)),
    "no models": Case("model_unknown", Quirk(models=()), words=("--model",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told(
    name: str,
    authority: Authority,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In words with cause and remedy, as JSON with a stable code, by the exit code."""
    case = CASES[name]
    monkeypatch.setenv("WRONG_KEY", "sk-0123456789-wrong")
    monkeypatch.setenv("RIGHT_KEY", KEY)
    tls = case.tls(authority) if case.tls else None
    options = (*case.options, *(("--ca-file", authority.file) if tls else ()))
    with endpoint_with(case.quirk, tls) as url:
        code, document, words = check(capsys, case.url(url), *options)
    finding = FINDINGS[case.code]
    assert code == finding.exit_code
    found = [c for c in document["checks"] if c.get("code") == case.code]
    assert len(found) == 1
    assert found[0]["ok"] is (finding.exit_code == 0)
    assert (found[0]["cause"], bool(found[0]["remedy"])) == (finding.cause, True)
    if finding.exit_code:
        assert document["error"]["code"] == case.code
        assert finding.cause in document["error"]["message"]
        assert document["error"]["hint"] == found[0]["remedy"]
    else:
        assert "error" not in document
    assert case.code in words
    for word in case.words:
        assert "".join(word.split()) in "".join(words.split())
    assert "sk-0123" not in json.dumps(document) + words
    assert "k=v" not in json.dumps(document) + words


def test_nobody_vouches_for_the_certificate(
    authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """A private authority is named by --ca-file; then all is well."""
    with endpoint_with(Quirk(), authority.server("127.0.0.1")) as url:
        code, document, words = check(capsys, url)
        assert (code, document["error"]["code"]) == (1, "tls_untrusted")
        assert "--ca-file" in words
        code, document, _ = check(capsys, url, "--ca-file", authority.file)
    assert (code, "error" in document) == (0, False)


def test_nobody_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port without a server, and a name without an address."""
    code, document, _ = check(capsys, refusing_url())
    assert (code, document["error"]["code"]) == (1, "connect_refused")

    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(client_module, "_look_up", unknown)
    code, document, words = check(capsys, "http://no-such-host.test")
    assert (code, document["error"]["code"]) == (2, "dns")
    assert "host name" in words


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    """Every check is ok, the text is fitted, and the plan is estimated."""
    limits = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "9"}
    quirk = Quirk(headers=limits)
    with endpoint_with(quirk) as url:
        code, document, words = check(capsys, url)
    assert code == 0
    assert all(c["ok"] for c in document["checks"])
    assert [c["name"] for c in document["checks"]] == [
        "connection", "answer", "clock", "limits", "stream", "usage", "length", "text",
    ]  # fmt: skip
    assert document["model"] == MODELS[0]
    assert document["text"]["chars_per_token"] == pytest.approx(PER_TOKEN, rel=0.02)
    assert document["text"]["template_tokens"] == pytest.approx(TEMPLATE, abs=1.5)
    assert document["tpot_s"] >= quirk.gap_s
    assert document["estimate"]["requests"] > 0
    assert document["estimate"]["seconds"] > 5
    assert "9 of 60 requests" in words
    assert len(quirk.posts) == 6  # of two checks


def test_the_estimate_of_the_mock_has_a_price(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A closed loop's is an upper bound, by the speed of the one answer."""
    with endpoint_with(Quirk()) as url:
        args = ["--prices", "azure-nd-gb300-v6", "--vms", "2"]
        _, document, words = check(capsys, url, *args)
    told = document["estimate"]
    assert told["usd"] == pytest.approx(2 * 112.48 * told["seconds"] / 3600)
    assert "$" in words


def test_a_run_says_the_same_at_its_start() -> None:
    """What was given wrong ends it before the first request; limits are left to it."""
    plan = Plan(rate=1.0)
    for name, model in (("model_unknown", "nosuch"), ("path_unknown", "")):
        quirk = Quirk(prefix="/v1" if model else "/other")
        with endpoint_with(quirk) as url, pytest.raises(LoadstoneError) as caught:
            probe(Endpoint.parse(url), plan.retargeted(model=model or MODELS[0]))
        assert caught.value.code == name
        assert caught.value.exit_code is ExitCode.USAGE
    with endpoint_with(Quirk(status=429)) as url:
        target = probe(Endpoint.parse(url), plan)
    assert (target.models, target.fit, target.mock) == (MODELS, None, None)
    quirk = Quirk(unknown=("ignore_eos",))
    with endpoint_with(quirk) as url:
        target = probe(Endpoint.parse(url), plan)
    assert target.refused == ("ignore_eos",)
    assert target.fit is not None
    assert target.fit.chars_per_token == pytest.approx(PER_TOKEN, rel=0.02)
    with endpoint_with(quirk := Quirk()) as url:
        probe(Endpoint.parse(url), plan, wanted=lambda: False)
    assert quirk.posts == []


@pytest.mark.parametrize(
    ("exchange", "keyed", "code"),
    [
        ({"error": "timeout_connect", "cause": "timeout_connect"}, False,
         "timeout_connect"),
        ({"error": "timeout_first_byte", "cause": "timeout_first_byte"}, False,
         "no_answer"),
        ({"error": "reset", "cause": "reset"}, False, "closed"),
        ({"error": "network", "cause": "network"}, False, "unreachable"),
        ({"error": "http_401", "status": 401}, True, "auth"),
        ({"error": "http_401", "status": 401}, False, "auth_missing"),
        ({"error": "http_403", "status": 403}, False, "auth_missing"),
        ({"error": "http_407", "status": 407}, True, "proxy"),
        ({"error": "http_405", "status": 405}, True, "path_unknown"),
        ({"error": "http_418", "status": 418}, True, "request_refused"),
        ({"error": "http_404", "status": 404,
          "error_text": "The API deployment for this resource does not exist."}, True,
         "model_unknown"),
        ({"error": "http_400", "status": 400,
          "error_text": "400 The plain HTTP request was sent to HTTPS port nginx"},
         False, "http_to_https"),
        ({"error": "http_400", "status": 400,
          "error_text": "Client sent an HTTP request to an HTTPS server."}, False,
         "http_to_https"),
        ({"status": 200}, False, None),
    ],
)  # fmt: skip
def test_codes(exchange: dict[str, Any], keyed: bool, code: str | None) -> None:
    """From what an exchange says, in the words of several servers."""
    made = Exchange(sent=0.0, end=1.0, **exchange)
    assert code_of_exchange(made, keyed=keyed) == code


def test_nearest_names() -> None:
    """The most similar first, a few of the others, and how many more there are."""
    assert nearest("x", ()) == ""
    assert nearest("LLAMA-3.3-70B", MODELS).endswith(
        f": {', '.join(sorted(MODELS, key=MODELS.index))}"
    )
    many = tuple(f"m{i}" for i in range(20))
    assert nearest("m19", many).startswith("choose one of its models by --model: m19")
    assert nearest("m19", many).endswith("and 12 more")


def test_the_table_is_the_documentation() -> None:
    """Every code is once in the table, with words, and the page has it as it is."""
    assert table() in DOCS.read_text(encoding="utf-8")
    for code, finding in FINDINGS.items():
        assert code == finding.code
        assert min(len(finding.cause), len(finding.remedy)) > 10
        assert fault(code, "x").exit_code in (1, 2)
    tried = {case.code for case in CASES.values()}
    elsewhere = {
        "dns", "connect_refused", "timeout_connect", "unreachable", "proxy", "tls",
        "tls_untrusted", "key_command", "no_answer", "bad_response",
    }  # fmt: skip
    assert tried | elsewhere == set(FINDINGS)
