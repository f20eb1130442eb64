"""`loadstone agree`: two endpoints, the same prompts, one document."""

import json
from pathlib import Path

import pytest
from quirks import Quirk, endpoint_with

from loadstone.cli.main import main


def agree(*args: str) -> int:
    """Run the verb; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["agree", *args])
    return int(str(ended.value.code))


def test_two_endpoints(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is asked twice; fixed seed, temperature 0; each has its own key."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("What is a rack?\n\nWhy?\n")
    out = tmp_path / "agreement.json"
    monkeypatch.setenv("A_KEY", "sk-a")
    monkeypatch.setenv("B_KEY", "sk-b")
    a = Quirk(key="sk-a", gap_s=0.004)
    b = Quirk(key="sk-b", models=("fp4",), tokens=4, gap_s=0.001)
    with endpoint_with(a) as first, endpoint_with(b) as second:
        options = (
            "--host", first, "--host", second, str(prompts), "--max-tokens", "8",
            "--seed", "5", "--api-key-env", "A_KEY", "--b-api-key-env", "B_KEY",
            "--out", str(out),
        )  # fmt: skip
        assert agree(*options, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert agree(*options) == 0
        words = capsys.readouterr().out
    assert told.keys() == json.loads(out.read_text()).keys()
    assert (told["a"]["host"], told["b"]["model"]) == (first, "fp4")
    assert (len(a.posts), len(b.posts)) == (8, 4)
    assert {(p["seed"], p["temperature"], p["max_tokens"]) for p in a.posts} == {
        (5, 0, 8)
    }
    assert a.posts[0]["messages"][0]["content"] == "What is a rack?"
    assert told["itself"]["exact"]["mean"] == 1
    assert told["each_other"]["exact"]["mean"] == 0
    assert told["each_other"]["prefix"]["mean"] == pytest.approx(0.5)
    assert told["each_other"]["f1"]["mean"] == pytest.approx(2 / 3)
    assert told["speed"]["e2e_s"]["ratio"] > 1
    assert "50.0 %" in words
    assert "not quality" in words
    assert "sk-" not in words + json.dumps(told)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--host", "http://h"), "two hosts are compared, not 1"),
        (("--host", "http://h", "--host", "http://i", "--api", "embeddings"),
         "no text"),
    ],
)  # fmt: skip
def test_wrong_usage(
    more: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before anything is asked."""
    prompts = tmp_path / "p"
    prompts.write_text("x")
    assert agree(*more, str(prompts)) == 2
    assert said in capsys.readouterr().err


def test_prompts_and_endpoints_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty file is wrong usage; an endpoint's trouble has the table's code."""
    prompts = tmp_path / "p"
    prompts.touch()
    with endpoint_with(Quirk(key="k")) as url:
        hosts = ("--host", url, "--host", url)
        assert agree(*hosts, str(prompts)) == 2
        prompts.write_text("x")
        assert agree(*hosts, str(prompts), "--json") == 2
    told = json.loads(capsys.readouterr().out)
    assert told["error"]["code"] == "auth_missing"
