"""`loadstone fit`: own points in, a preset out that `simulate` and `serve` take."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from closed_loops import measure
from processes import mock_server

from loadstone.catalog.own_preset import read_own_preset
from loadstone.catalog.presets import load_preset
from loadstone.cli.main import main

MACHINE = load_preset("azure-nd-h100-v5", "llama-3.1-8b")
PLANTED = replace(MACHINE.law, step_ms=1.4 * MACHINE.law.step_ms)
CONCURRENCIES = (1, 8, 32, 128, 512)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a verb and returns its exit code and outputs."""

    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(list(args))
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure an engine whose launches take 1.4 times as long; write the points."""
    lines = ["isl,osl,concurrency,tpot_ms,ttft_ms,label"]
    for n in CONCURRENCIES:
        p = measure(MACHINE, PLANTED, concurrency=n, isl=500, osl=200)
        lines.append(f"500,200,{n},{p.tpot_ms},{p.ttft_ms},c{n}")
    path = tmp_path_factory.mktemp("own") / "points.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


ON_H100 = ("--gpu", "h100", "--model", "meta-llama/Llama-3.1-8B-Instruct")


def test_fit_finds_what_was_changed_and_says_the_rest(run: Run, points: Path) -> None:
    """Launches 1.4 times as long; attention not identified; residuals of each point."""
    code, out, _ = run("fit", str(points), *ON_H100, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["preset"], found["model"]) == ("azure-nd-h100-v5", "llama-3.1-8b")
    assert found["points"] == len(CONCURRENCIES)
    step = found["constants"]["step_ms"]
    # Reading weights and launching are one part to TPOT: both move, their sum is right.
    fixed = sum(found["constants"][c]["value"] for c in ("weights_ms", "step_ms"))
    assert fixed == pytest.approx(PLANTED.weights_ms + PLANTED.step_ms, rel=0.05)
    assert step["low"] < step["value"] < step["high"]
    assert step["identified"]
    assert step["prior"] == pytest.approx(MACHINE.law.step_ms)
    assert {"knee", "sigma"} <= set(found["not_identified"])
    assert found["mean_error"] < 0.02
    assert [r["point"] for r in found["residuals"]] == [f"c{n}" for n in CONCURRENCIES]


def test_table_says_points_per_factor_and_what_stays(run: Run, points: Path) -> None:
    """In words, for people."""
    code, out, _ = run("fit", str(points), *ON_H100)
    said = " ".join(out.split())
    assert code == 0
    assert "factors on 5 points" in said
    assert "few, so trust the intervals" in said
    assert "never fitted: knee, sigma" in said
    assert "fp8 TP1, KV cache fp8" in said


def test_preset_file_is_facts_and_serves(
    run: Run, points: Path, tmp_path: Path
) -> None:
    """Source, date, unit, interval; `simulate` runs on it and says it is one's own."""
    mine = tmp_path / "mine.toml"
    code, out, _ = run("fit", str(points), *ON_H100, "-o", str(mine))
    assert code == 0
    assert "mine.toml" in out.replace("\n", "")
    tables = tomllib.loads(mine.read_text())
    day = datetime.now(UTC).date().isoformat()
    assert tables["law"]["source"] == f"fit of {tables['law']['date']} on 5 own points"
    assert tables["law"]["date"] <= day
    law = tables["law"]["step_ms"]
    assert law["low"] < law["value"] < law["high"]
    assert law["unit"] == "ms/step"
    assert "do not tell" in tables["law"]["knee"]["note"]
    assert len(tables["fit"]["residuals"]) == 5
    machine = read_own_preset(mine.read_text(), "mine.toml")
    assert machine.basis == "own"
    assert machine.law.step_ms == law["value"]
    assert (machine.limits, machine.layout) == (MACHINE.limits, MACHINE.layout)
    code, out, _ = run(
        "simulate", "--preset", str(mine), "--rate", "20", "--duration", "20s",
        "--out", str(tmp_path / "runs"), "--json",
    )  # fmt: skip
    assert code == 0
    summary = json.loads(out)
    assert summary["model"] == "llama-3.1-8b"
    assert "law fitted on your own points" in summary["assumptions"][0]
    assert any(text.startswith("step_ms") for text in summary["assumptions"])


def test_mock_serves_a_preset_file(run: Run, points: Path, tmp_path: Path) -> None:
    """Over HTTP, under the model's name."""
    mine = tmp_path / "mine.toml"
    run("fit", str(points), *ON_H100, "-o", str(mine))
    with mock_server("--preset", str(mine)) as url:
        import urllib.request

        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            assert json.load(answer)["data"][0]["id"] == "llama-3.1-8b"


def test_run_folder_is_a_point(run: Run, tmp_path: Path) -> None:
    """Rows of a run are read: the law that made them is found at a factor near 1."""
    out = tmp_path / "runs"
    for rate in ("5", "40", "80"):
        code, *_ = run(
            "simulate", "--preset", "azure-nd-h100-v5", "--model", "llama-3.1-8b",
            "--rate", rate, "--duration", "60s", "--out", str(out / rate),
        )  # fmt: skip
        assert code == 0
    folders = [str((out / rate / "latest").resolve()) for rate in ("5", "40", "80")]
    code, said, _ = run("fit", *folders, *ON_H100, "--engines", "8", "--json")
    found = json.loads(said)
    assert code == 0
    assert found["points"] == 3
    assert found["mean_error"] < 0.02
    for constant in ("step_ms", "weights_ms"):
        figure = found["constants"][constant]
        assert figure["value"] == pytest.approx(figure["prior"], rel=0.05)


def test_one_concurrency_is_said_to_tell_no_slope(
    run: Run, points: Path, tmp_path: Path
) -> None:
    """The constants are named, in parentheses, and keep the catalog's proportion."""
    lines = points.read_text().splitlines()
    one = tmp_path / "one.csv"
    one.write_text("\n".join([lines[0], lines[3], lines[3]]) + "\n")
    code, out, _ = run("fit", str(one), *ON_H100)
    said = " ".join(out.split())
    assert code == 0
    assert "fitted 1 factors on 2 points" in said
    assert "not identified by these points: weights_ms, step_ms, gemm_us" in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("isl,osl,concurrency,tpot_ms\n1,2\n", "line 2: not as many fields"),
        (
            "isl,osl,concurrency,tpot_ms\n100,50,8,fast\n",
            "line 2: tpot_ms 'fast' is not",
        ),
        ("isl,osl,users,tpot_ms\n100,50,8,20\n", "line 1: unknown column 'users'"),
        ("isl,osl,concurrency\n100,50,8\n", "line 2: give tpot_ms, or tokens_per_s"),
        ("osl,concurrency,tpot_ms\n50,8,20\n", "line 1: no column 'isl'"),
        (
            "isl,osl,concurrency,tpot_ms\n100,50,8,20\n100,50,,20\n",
            "line 3: give either concurrency or requests_per_s",
        ),
        ("isl,osl,concurrency,tpot_ms\n", "there is no point to fit"),
    ],
)
def test_bad_points_are_refused_with_their_line(
    run: Run, tmp_path: Path, text: str, why: str
) -> None:
    """Wrong usage; the error names file, line and column."""
    path = tmp_path / "bad.csv"
    path.write_text(text)
    code, _, err = run("fit", str(path), *ON_H100)
    assert code == 2
    assert why in err


def test_other_wrong_usage(run: Run, points: Path, tmp_path: Path) -> None:
    """No such file, GPU or model; two machines; a layout that a file does not have."""
    mine = tmp_path / "mine.toml"
    run("fit", str(points), *ON_H100, "-o", str(mine))
    for args, why in (
        (("fit", "none.csv", *ON_H100), "cannot read the points none.csv"),
        (("fit", str(tmp_path), *ON_H100), "no request has a TPOT"),
        (("fit", str(points), "--gpu", "abacus"), "no preset has the GPU 'abacus'"),
        (
            ("fit", str(points), "--gpu", "h100", "--preset", "azure-nd-h200-v5"),
            "--preset or --gpu",
        ),
        (("fit", str(points), "--model", "gpt-5"), "no model 'gpt-5'"),
        (("fit", str(points), *ON_H100, "--precision", "fp4"), "have no fp4"),
        (("fit", str(points), *ON_H100, "-o", "mine.txt"), "is to be a .toml file"),
        (
            (
                "simulate",
                "--preset",
                str(mine),
                "--model",
                "llama-2-70b",
                "--rate",
                "1",
            ),
            "was fitted with --model llama-3.1-8b, not llama-2-70b",
        ),
        (
            ("simulate", "--preset", str(mine), "--precision", "bf16", "--rate", "1"),
            "was fitted with --precision fp8",
        ),
        (
            ("simulate", "--preset", "none.toml", "--rate", "1"),
            "cannot read the preset",
        ),
    ):
        code, _, err = run(*args)
        assert (code, why in err) == (2, True), (args, err)


def spoil(tables: dict[str, Any], change: str) -> str:
    """Return a preset file with one fault."""
    import tomli_w

    match change:
        case "table":
            tables["colour"] = {}
        case "machine":
            tables["machine"]["colour"] = "blue"
        case "type":
            tables["machine"]["tensor_parallel"] = "one"
        case "law":
            del tables["law"]["weights_ms"]
        case "fact":
            tables["law"]["weights_ms"]["value"] = "long"
        case "negative":
            tables["law"]["weights_ms"] |= {"value": -1.0, "low": -2.0, "high": 0.0}
    return tomli_w.dumps(tables)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("table", "unknown or missing table 'colour'"),
        ("machine", "[machine]: unknown or missing field 'colour'"),
        ("type", "[machine]: tensor_parallel 'one' is not int"),
        ("law", "[law]: unknown or missing field 'weights_ms'"),
        ("fact", "[law.weights_ms]: value 'long' is not a number"),
        ("negative", "[law]: not a step law"),
    ],
)
def test_spoiled_preset_files_are_refused(
    run: Run, points: Path, tmp_path: Path, change: str, why: str
) -> None:
    """By name of file, table and field."""
    mine = tmp_path / "mine.toml"
    run("fit", str(points), *ON_H100, "-o", str(mine))
    mine.write_text(spoil(tomllib.loads(mine.read_text()), change))
    code, _, err = run("simulate", "--preset", str(mine), "--rate", "1")
    assert (code, why in err) == (2, True), err
    mine.write_text("no = toml = at all")
    code, _, err = run("simulate", "--preset", str(mine), "--rate", "1")
    assert (code, "is not TOML" in err) == (2, True)
