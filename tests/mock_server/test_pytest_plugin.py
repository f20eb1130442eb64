"""The fixture `mock_llm`, in test files of other people."""

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

DOCS = Path(__file__).parents[2] / "docs/testing.md"
EXAMPLES = re.findall(
    r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL
)
ASK = """
import json, urllib.request, urllib.error
import pytest

def ask(mock, path="/v1/chat/completions", headers=None, **fields):
    body = {"model": mock.model, "messages": [{"role": "user", "content": "x" * 400}]}
    headers = {"x-loadstone-truth": "1"} | (headers or {})
    data = json.dumps(body | fields).encode()
    request = urllib.request.Request(mock.url + path, data, headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)
"""
Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Give what runs a test file under the plugin, with strict markers and warnings."""
    known = any(point.value == "loadstone.testing"
                for point in entry_points(group="pytest11"))  # fmt: skip
    plugin = [] if known else ["-p", "loadstone.testing"]

    def run(source: str, *args: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        return pytester.runpytest(
            "-p", "no:locust", *plugin, "--strict-markers", "-W", "error", *args
        )

    return run


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_documentation_is_right(run: Run, number: int) -> None:
    """Each example runs as it stands there."""
    run(EXAMPLES[number]).assert_outcomes(passed=1)


def test_virtual_time_is_the_models_and_repeats(run: Run) -> None:
    """The same requests give the same figures, and the truth has them too."""
    source = """
    @pytest.mark.parametrize("again", [1, 2, 3])
    @pytest.mark.mock_llm(output_tokens=300, seed=3)
    def test_it(mock_llm, again, pytestconfig):
        answers = [ask(mock_llm, seed=n) for n in range(3)]
        figures = [(s.ttft_s, s.tpot_s, s.e2e_s) for s in mock_llm.served]
        assert figures == getattr(pytestconfig, "figures", figures)
        pytestconfig.figures = figures
        for answer, served in zip(answers, mock_llm.served):
            truth = answer["loadstone"]
            assert served.status == 200
            assert (served.prompt_tokens, served.output_tokens) == (101, 300)
            waited = truth["scheduled_first_s"] - truth["received_s"]
            assert waited == pytest.approx(served.ttft_s, abs=2e-6)
            took = truth["scheduled_last_s"] - truth["scheduled_first_s"]
            assert took == pytest.approx(299 * served.tpot_s, abs=2e-6)
            assert served.ttft_s > 0.01 and served.tpot_s > 0.01
            assert not truth["lag_alarm"]
    """
    run(ASK + _dedent(source)).assert_outcomes(passed=3)


def test_virtual_time_does_not_wait(run: Run) -> None:
    """An hour of the engine's time is over in a moment of ours."""
    source = """
    import time

    @pytest.mark.mock_llm(output_tokens=200, slowdown=1000.0)
    def test_it(mock_llm):
        began = time.monotonic()
        ask(mock_llm)
        assert mock_llm.served[0].e2e_s > 1800
        assert time.monotonic() - began < 60
    """
    run(ASK + _dedent(source)).assert_outcomes(passed=1)


def test_a_held_clock_makes_a_batch(run: Run) -> None:
    """Without it each request would have been alone on its engine."""
    source = """
    from concurrent.futures import ThreadPoolExecutor

    @pytest.mark.mock_llm(output_tokens=50, max_num_seqs=2)
    def test_it(mock_llm):
        with ThreadPoolExecutor(12) as users, mock_llm.hold():
            for user in range(12):
                users.submit(ask, mock_llm)
            mock_llm.wait_for(12)
        # Four engines of two places: eight at once, four after them.
        waits = sorted(served.queue_s for served in mock_llm.served)
        assert waits[:8] == [0.0] * 8
        assert all(wait > 0.5 for wait in waits[8:])
    """
    run(ASK + _dedent(source)).assert_outcomes(passed=1)


def test_streams_are_served_by_the_time_they_are_read(run: Run) -> None:
    """Right after `[DONE]`, and with nothing of the stream cut off."""
    source = """
    @pytest.mark.mock_llm(output_tokens=3000)
    def test_it(mock_llm):
        for n in range(1, 6):
            body = {"model": mock_llm.model, "stream": True,
                    "messages": [{"role": "user", "content": "x"}]}
            request = urllib.request.Request(
                mock_llm.url + "/v1/chat/completions", json.dumps(body).encode())
            with urllib.request.urlopen(request) as response:
                text = response.read()
            assert text.count(b'"content":" ') == 3000
            assert len(mock_llm.served) == n
    """
    run(ASK + _dedent(source)).assert_outcomes(passed=1)


def test_errors_and_settings_are_those_of_the_server(run: Run) -> None:
    """Keys, refusals, the probe and the metrics."""
    source = """
    @pytest.mark.mock_llm(api_key="sesame", vms=2, stream_interval=4)
    def test_it(mock_llm):
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(mock_llm)
        assert caught.value.code == 401
        caught.value.close()
        assert mock_llm.served == []
        ask(mock_llm, headers={"Authorization": "Bearer sesame"}, max_tokens=3)
        assert [served.output_tokens for served in mock_llm.served] == [3]
        with urllib.request.urlopen(mock_llm.url + "/version") as response:
            version = json.load(response)
        assert (version["clock"], version["vms"], version["stream_interval"]) == (
            "virtual", 2, 4)
        with urllib.request.urlopen(mock_llm.url + "/metrics") as response:
            assert b"vllm:generation_tokens_total" in response.read()
    """
    run(ASK + _dedent(source)).assert_outcomes(passed=1)


def test_what_cannot_be_is_an_error_of_the_test(run: Run) -> None:
    """An unknown option, a model without timing, a held real clock."""
    source = """
    @pytest.mark.mock_llm(colour="red")
    def test_option(mock_llm):
        pass

    @pytest.mark.mock_llm(model="gpt-17")
    def test_model(mock_llm):
        pass

    @pytest.mark.mock_llm(clock="real")
    def test_hold(mock_llm):
        with pytest.raises(RuntimeError, match="virtual"), mock_llm.hold():
            pass

    def test_too_few(mock_llm, monkeypatch):
        monkeypatch.setattr("loadstone.testing.PATIENCE_S", 0.01)
        with pytest.raises(TimeoutError, match="0 of 1"):
            mock_llm.wait_for(1)
    """
    result = run(ASK + _dedent(source))
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["*colour*", "*gpt-17*"])


def test_a_pytest_that_does_not_use_it_loads_nothing() -> None:
    """The plugin is imported by every pytest there is: it must be light."""
    source = (
        "import sys, pytest, loadstone.testing;"
        "heavy = {'aiohttp', 'click', 'locust', 'gevent', 'mock_server'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def _dedent(source: str) -> str:
    return re.sub(r"^    ", "", source, flags=re.MULTILINE)
