"""The catalog: every figure has its certificate, and agrees with what was published."""

import copy
import csv
import tomllib
from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from itertools import pairwise
from statistics import fmean
from typing import Any

import pytest
from calibration_data import CALIBRATION, published

from loadstone.catalog import facts, gpus, laws, models, presets, workloads
from loadstone.catalog.facts import CONFIDENCE, Fact, entry, read_fact, read_table
from loadstone.catalog.presets import load_preset
from loadstone.catalog.workloads import (
    load_lengths,
    load_price,
)
from loadstone.errors import CatalogError, ExitCode
from loadstone.traffic.trace import read_trace

PRESET, MODEL = "azure-nd-gb300-v6", "llama-2-70b"
TABLES = (
    "constants", "engines", "gpus", "lengths", "models", "presets", "prices", "slos",
)  # fmt: skip
PROVENANCE = ("source", "date", "confidence")


def certified(table: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what holds a figure or a distribution, with what it inherits."""
    if {"value", "levels", "dataset"} & set(table):
        yield path, table
        return
    given = {name: table[name] for name in PROVENANCE if name in table}
    for name, inner in table.items():
        if isinstance(inner, dict):
            yield from certified(given | inner, f"{path}.{name}")


FIGURES = [figure for name in TABLES for figure in certified(read_table(name), name)]


def test_all_tables_are_looked_at() -> None:
    """A new one has to be named above."""
    here = files("loadstone.catalog").iterdir()
    assert {p.name for p in here if p.name.endswith(".toml")} == {
        f"{name}.toml" for name in TABLES
    }
    assert len(FIGURES) >= 20


@pytest.mark.parametrize("figure", FIGURES, ids=[path for path, _ in FIGURES])
def test_every_figure_has_a_birth_certificate(
    figure: tuple[str, dict[str, Any]],
) -> None:
    """Unit, source, date and confidence; bounds that hold the value, both or none.

    An entry of several figures, as a recipe's limits, has units in their names.
    """
    _, table = figure
    assert "dataset" in table or len(table["unit"]) >= 1
    for field in ("source", "date"):
        assert len(table[field]) >= 4
    assert table["confidence"] in CONFIDENCE
    assert any(
        _is_date(table["date"], pattern) for pattern in ("%Y-%m-%d", "%Y-%m", "%Y")
    )
    assert ("low" in table) == ("high" in table)
    if "low" in table:
        assert table["low"] <= table["value"] <= table["high"]


def _is_date(text: str, pattern: str) -> bool:
    try:
        datetime.strptime(text, pattern)  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return False
    return True


# ------------------------------------------------------------- refusals

GOOD = {
    "value": 1.5,
    "unit": "ms",
    "source": "a paper",
    "date": "2026-01",
    "confidence": "vendor",
}


def test_fact_is_read_whole() -> None:
    """Bounds and a note may be added."""
    fact = read_fact(GOOD | {"low": 1.0, "high": 2.0, "note": "n"}, "here")
    assert fact == Fact(**GOOD, low=1.0, high=2.0, note="n")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"colour": "blue"}, "unknown field 'colour'"),
        ({"confidence": "gossip"}, "confidence 'gossip' is none of"),
        ({"source": ""}, "needs a unit, a source and a date"),
        ({"date": ""}, "needs a unit, a source and a date"),
        ({"unit": ""}, "needs a unit, a source and a date"),
        ({"low": 1.0}, "low and high"),
        ({"high": 2.0}, "low and high"),
        ({"low": 1.6, "high": 2.0}, "low and high"),
        ({"low": 1.0, "high": 1.4}, "low and high"),
        ({"value": "1.5"}, "is not a number"),
        ({"value": True}, "is not a number"),
    ],
)
def test_wrong_facts_are_refused(change: dict[str, Any], why: str) -> None:
    """The reader is strict: what it does not know it does not ignore."""
    with pytest.raises(CatalogError, match=f"^here: .*{why}"):
        read_fact(GOOD | change, "here")


@pytest.mark.parametrize("field", GOOD)
def test_facts_lack_nothing(field: str) -> None:
    """The error names the place and the field."""
    lacking = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(CatalogError, match=f"^here: .*'{field}'"):
        read_fact(lacking, "here")


class Spoiled:
    """Tables of facts with a fault put in, in place of those on disk."""

    def __init__(self) -> None:
        self.tables = {name: copy.deepcopy(read_table(name)) for name in TABLES}

    def read(self, name: str) -> dict[str, Any]:
        """Return a table, as `read_table` does."""
        return self.tables[name]


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spoiled]:
    """Let the catalog read tables that a test may spoil."""
    tables = Spoiled()
    for module in (facts, gpus, models, presets, workloads):
        monkeypatch.setattr(module, "read_table", tables.read)
    for kept in (laws.load_constants, models._aliases):
        kept.cache_clear()
    yield tables
    for kept in (laws.load_constants, models._aliases):
        kept.cache_clear()


def test_tables_as_they_are_can_be_read(spoiled: Spoiled) -> None:
    """So what is refused below is refused for its fault alone."""
    assert load_preset(PRESET, MODEL).gpu == "gb300"
    assert load_price(PRESET).gpus == 4


def test_unknown_fields_are_refused(spoiled: Spoiled) -> None:
    """In a machine, an engine, a constant, a GPU, a model, a price and a length."""
    for table in (
        spoiled.tables["presets"][PRESET],
        spoiled.tables["presets"][PRESET]["gpus_per_vm"],
        spoiled.tables["engines"]["trtllm-5.1"],
        spoiled.tables["engines"]["trtllm-5.1"]["block_size"],
        spoiled.tables["constants"]["fit"],
        spoiled.tables["constants"]["constants"]["knee"],
        spoiled.tables["gpus"]["gb300"],
        spoiled.tables["models"][MODEL],
    ):
        table["typo"] = 1
        laws.load_constants.cache_clear()
        with pytest.raises(CatalogError, match="'typo'"):
            load_preset(PRESET, MODEL)
        del table["typo"]
    spoiled.tables["prices"][PRESET]["typo"] = 1
    with pytest.raises(CatalogError, match="'typo'"):
        load_price(PRESET)
    spoiled.tables["lengths"]["mlperf-llama2-70b-input"]["typo"] = 1
    with pytest.raises(CatalogError, match="unknown field"):
        load_lengths("mlperf-llama2-70b-input")


def test_missing_fields_are_refused(spoiled: Spoiled) -> None:
    """The error names table, entry and field."""
    del spoiled.tables["presets"][PRESET]["gpus_per_vm"]
    with pytest.raises(
        CatalogError, match=rf"presets\.toml \[{PRESET}\].*'gpus_per_vm'"
    ):
        load_preset(PRESET, MODEL)
    del spoiled.tables["prices"][PRESET]["usd_per_vm_hour"]["source"]
    with pytest.raises(CatalogError, match=r"usd_per_vm_hour.*'source'"):
        load_price(PRESET)
    del spoiled.tables["lengths"]["mlperf-llama2-70b-input"]["source"]
    with pytest.raises(CatalogError, match="no provenance"):
        load_lengths("mlperf-llama2-70b-input")


def test_unknown_names_are_wrong_usage_with_a_list() -> None:
    """What there is stands in the hint."""
    with pytest.raises(CatalogError, match="no preset 'a100' in the catalog") as caught:
        load_preset("a100", MODEL)
    assert (caught.value.exit_code, PRESET in caught.value.hint) == (
        ExitCode.USAGE,
        True,
    )
    with pytest.raises(CatalogError, match="no model 'gpt-5'") as unknown:
        load_preset(PRESET, "gpt-5")
    assert MODEL in unknown.value.hint
    with pytest.raises(CatalogError, match="no price 'free'"):
        load_price("free")
    with pytest.raises(CatalogError, match="no length 'haiku'"):
        load_lengths("haiku")
    with pytest.raises(CatalogError, match="no model 'x'"):
        entry("models", "x")


# ------------------------------------------------------------- what is loaded


def test_price_says_who_says_so() -> None:
    """Value, unit, date, confidence and source, wherever it is used."""
    said = load_price(PRESET).assumption()
    for part in ("112.48 USD/VM-hour", "2026-09", "third_party", "unconfirmed"):
        assert part in said


@pytest.mark.parametrize("name", sorted(read_table("lengths")))
def test_every_table_of_lengths_can_be_drawn_from(name: str) -> None:
    """And says where it is from."""
    assert load_lengths(name).mean > 0


# ------------------------------------------------------------- what was published


def test_rack_power_is_as_published() -> None:
    """136 kW of IT load, a tenth of a joule and more per token of the rack run."""
    machine = load_preset(PRESET, MODEL)
    value = {name: fact.value for name, fact in machine.facts.items()}
    assert value["rack_it_w"] == 136e3
    rate = value["published_vm_mean"] * value["vms_per_rack"]
    assert value["rack_it_w"] / rate == pytest.approx(0.1235, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("mlperf-llama2-70b-input", 222.3),
        ("mlperf-llama2-70b-output", 273.0),
        ("azure-2023-conversation-input", 1154.7),
        ("azure-2023-conversation-output", 211.1),
    ],
)
def test_length_tables_have_the_published_means(name: str, mean: float) -> None:
    """Within 1.5 %: 28 quantiles stand for some 20,000 samples."""
    assert load_lengths(name).mean == pytest.approx(mean, rel=0.015)


@pytest.mark.parametrize(
    ("name", "file", "column"),
    [
        (
            "mlperf-llama2-70b-input",
            "lengths/mlperf_llama2_70b_lengths.csv",
            "input_length",
        ),
        (
            "azure-2023-conversation-input",
            "traces/azure_llm_2023_conv.csv",
            "ContextTokens",
        ),
        (
            "azure-2023-conversation-output",
            "traces/azure_llm_2023_conv.csv",
            "GeneratedTokens",
        ),
    ],
)
def test_length_tables_are_those_of_the_samples(
    name: str, file: str, column: str
) -> None:
    """Mean within 1.5 %, each quantile within a token or 1.5 % of a sample near it."""
    table = load_lengths(name)
    samples = sorted(int(row[column]) for row in published(file))
    assert all(a <= b for a, b in pairwise(table.tokens))
    if samples:
        assert table.mean == pytest.approx(fmean(samples), rel=0.015)
        assert (table.tokens[0], table.tokens[-1]) == (samples[0], samples[-1])
        for level, tokens in zip(table.levels, table.tokens, strict=True):
            at = round(level * (len(samples) - 1))
            near = samples[max(0, at - 2)], samples[min(at + 2, len(samples) - 1)]
            assert 0.985 * near[0] - 1 <= tokens <= 1.015 * near[1] + 1


def test_generated_lengths_are_the_reference_answers_scaled() -> None:
    """Each quantile times one factor, that of the means, up to the cap of 1,024."""
    table = load_lengths("mlperf-llama2-70b-output")
    assert table.tokens[-1] == 1024
    samples = sorted(
        int(row["output_length"])
        for row in published("lengths/mlperf_llama2_70b_lengths.csv")
    )
    if samples:
        factor = table.at(0.5) / samples[len(samples) // 2]
        assert 273 / 218.9 <= factor <= 1.03 * 273 / 218.9  # the cap cuts a little
        for level, tokens in zip(table.levels, table.tokens, strict=True):
            scaled = factor * samples[round(level * (len(samples) - 1))]
            assert tokens == pytest.approx(min(scaled, 1024), rel=0.02, abs=1)


def test_trace_reader_agrees_with_a_naive_one_on_the_azure_trace() -> None:
    """The first 60 seconds, to a microsecond, and every length."""
    lines = [
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        "2023-11-16 18:15:46.6805900,374,44",
        "2023-11-16 18:15:50.9951690,396,109",
    ]
    path = CALIBRATION / "traces" / "azure_llm_2023_conv.csv"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
    rows = [row for row in read_trace(lines, name=path.name).rows if row.at_s < 60.0]
    naive = []
    for row in csv.DictReader(lines):
        # Python reads six decimals: the seventh is cut off, and always 0 in this trace.
        stamp, seventh = row["TIMESTAMP"][:-1], row["TIMESTAMP"][-1]
        at = datetime.strptime(stamp + "+0000", "%Y-%m-%d %H:%M:%S.%f%z").timestamp()
        naive.append((at, row["ContextTokens"], row["GeneratedTokens"], seventh))
    first = naive[0][0]
    naive = [row for row in naive if row[0] - first < 60.0]
    assert len(rows) == len(naive) >= 2
    assert {row[3] for row in naive} == {"0"}
    for row, (at, n_in, n_out, _) in zip(rows, naive, strict=True):
        assert row.at_s == pytest.approx(at - first, abs=1e-6)
        assert (row.input_tokens, row.output_tokens) == (int(n_in), int(n_out))


def test_tables_are_toml_with_comments_that_say_what_they_are() -> None:
    """Each opens with a line for the reader, and parses as it stands on disk."""
    for name in TABLES:
        text = files("loadstone.catalog").joinpath(f"{name}.toml").read_text("utf-8")
        assert text.startswith("# ")
        assert tomllib.loads(text) == read_table(name)
