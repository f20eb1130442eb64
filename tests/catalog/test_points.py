"""Published points: as published, typed, and read strictly."""

import csv
from dataclasses import dataclass, fields
from importlib.resources import files

import pytest
from calibration_data import published
from hypothesis import given
from hypothesis import strategies as st

from loadstone.catalog.gpus import gpu_names, load_accelerator
from loadstone.catalog.models import load_architecture, model_names
from loadstone.catalog.points import (
    PublishedPoint,
    load_points,
    load_rack_spreads,
    read_points,
)
from loadstone.catalog.rows import read_rows
from loadstone.errors import CatalogError, ExitCode

HEADER = ",".join(field.name for field in fields(PublishedPoint))
GOOD = {
    "id": "mine-1",
    "accelerator": "h100",
    "model": "llama2-70b",
    "scenario": "offline",
    "n_gpus": "8",
    "tokens_per_s_system": "800",
    "tokens_per_s_per_gpu": "100.5",
    "input_tokens_mean": "222.3",
    "source": "a paper",
    "confidence": "vendor",
}


def lines(*changes: dict[str, str]) -> list[str]:
    """Return a CSV of the good row, changed in turn."""
    names = HEADER.split(",")
    rows = [
        ",".join((GOOD | change).get(name, "") for name in names) for change in changes
    ]
    return [line + "\n" for line in (HEADER, *rows)]


def test_row_is_read_typed() -> None:
    """Numbers are numbers, what is not stated is None, text is text."""
    (point,) = read_points(lines({}), "mine.csv")
    assert (point.n_gpus, point.tokens_per_s_per_gpu) == (8, 100.5)
    assert (point.tpot_mean_ms, point.engine_settings, point.precision) == (
        None,
        "",
        "",
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n_gpus": "8.5"}, "line 3: n_gpus '8.5' is not a whole number"),
        ({"n_gpus": ""}, "line 3: n_gpus '' is not a whole number"),
        (
            {"tokens_per_s_per_gpu": "fast"},
            "tokens_per_s_per_gpu 'fast' is not a number",
        ),
        ({"tokens_per_s_per_gpu": "nan"}, "'nan' is not a number"),
        ({"tokens_per_s_per_gpu": "inf"}, "'inf' is not a number"),
        (
            {"tokens_per_s_per_gpu": "0"},
            "line 3: tokens_per_s_per_gpu 0 is not positive",
        ),
        ({"tpot_p99_ms": "-3"}, "tpot_p99_ms -3 is not positive"),
        ({"accelerator": "abacus"}, "accelerator 'abacus' is none of b200, b300"),
        ({"scenario": "dream"}, "scenario 'dream' is none of offline"),
        ({"confidence": "gossip"}, "confidence 'gossip' is none of official"),
        ({"id": ""}, "line 3: id is empty"),
        ({"source": ""}, "line 3: source is empty"),
        ({"id": "mine-1"}, "2 points have the id 'mine-1'"),
        ({"note": '"open'}, "line 3"),
        ({"note": "a,b"}, "line 3: not as many fields as the header has"),
    ],
)
def test_bad_values_are_refused(change: dict[str, str], why: str) -> None:
    """The error names file, line and column."""
    with pytest.raises(CatalogError, match=r"^mine\.csv: ") as refused:
        read_points(lines({}, {"id": "mine-2"} | change), "mine.csv")
    assert why in refused.value.message
    assert refused.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (HEADER + ",colour", "line 1: unknown column 'colour'"),
        (HEADER.replace("n_gpus,", ""), "line 1: no column 'n_gpus'"),
        (HEADER + ",id", "line 1: a column is there twice"),
        ("", "line 1: no column 'id'"),
    ],
)
def test_bad_headers_are_refused(header: str, why: str) -> None:
    """What is not known is not ignored, and what is needed not guessed."""
    with pytest.raises(CatalogError) as refused:
        read_points([header + "\n"], "mine.csv")
    assert why in refused.value.message


@dataclass
class Pair:
    """A row with a column that may be left out."""

    one: int
    two: float | None = None


def test_columns_with_defaults_may_be_left_out() -> None:
    """And columns may stand in any order."""
    assert list(read_rows(["one\n", "3\n"], Pair, "f")) == [Pair(3)]
    assert list(read_rows(["two,one\n", "1.5,3\n"], Pair, "f")) == [Pair(3, 1.5)]
    assert list(read_rows(["two,one\n", ",3\n"], Pair, "f")) == [Pair(3)]


@given(
    st.lists(
        st.tuples(
            st.integers(), st.none() | st.floats(allow_nan=False, allow_infinity=False)
        )
    )
)
def test_what_is_written_is_read(rows: list[tuple[int, float | None]]) -> None:
    """Every finite number survives, and an empty field is None."""
    text = ["one,two\n", *(f"{a},{'' if b is None else repr(b)}\n" for a, b in rows)]
    assert list(read_rows(text, Pair, "f")) == [Pair(*row) for row in rows]


# ------------------------------------------------------------- what is in the package


def test_points_are_those_that_were_collected() -> None:
    """Row for row, column for column."""
    text = (
        files("loadstone.catalog").joinpath("published_points.csv").read_text("utf-8")
    )
    ours = list(csv.DictReader(text.splitlines()))
    assert len(ours) == len(load_points()) == 422
    theirs = published("published_points.csv")
    assert not theirs or ours == theirs
    spread = published("rack_vm_spread.csv")
    for row, ours_ in zip(spread, load_rack_spreads(), strict=False):
        assert float(row["vm_mean_tokens_per_s"]) == ours_.vm_mean_tokens_per_s
        assert float(row["rack_total_tokens_per_s"]) == ours_.rack_total_tokens_per_s


def test_figures_of_a_row_agree_with_each_other() -> None:
    """tokens/s of a GPU is a share of the system's; requests times length are it."""
    for point in load_points():
        per_gpu = point.tokens_per_s_system / point.n_gpus
        assert point.tokens_per_s_per_gpu == pytest.approx(per_gpu, rel=2e-3), point.id
        if point.requests_per_s and point.output_tokens_mean:
            rate = point.requests_per_s * point.output_tokens_mean
            assert rate == pytest.approx(point.tokens_per_s_system, rel=5e-3), point.id


def test_rack_run_is_said_to_be_unverified() -> None:
    """Wherever the facts of Azure's run are shown, so is that."""
    (rack,) = load_rack_spreads()
    found = dict(rack.facts())
    assert found["published_tokens_per_gpu"].value == pytest.approx(15_290.95, rel=1e-6)
    for fact in found.values():
        assert "not verified by MLCommons" in fact.source
        assert "offline" in fact.source


# ------------------------------------------------------------- GPUs and models


PEAKS = ("fp4", "fp8", "bf16")


@pytest.mark.parametrize("name", gpu_names())
def test_accelerators_are_as_collected(name: str) -> None:
    """Peaks, memory, bandwidth, links, size of the domain."""
    gpu = load_accelerator(name)
    assert gpu.hbm_bytes_per_s > gpu.link_bytes_per_s > 1e11
    for row in published("hardware.csv", kind="gpu", accelerator=name):
        peaks = (gpu.fp4_dense_tflops, gpu.fp8_dense_tflops, gpu.bf16_dense_tflops)
        for precision, peak in zip(PEAKS, peaks, strict=True):
            text = row[f"{precision}_dense_tflops"]
            assert peak == (float(text) if text else None)
        size = float(row["hbm_mib"]) * 2**20 if row["hbm_mib"] else 0.0
        assert gpu.hbm_bytes == (size or float(row["hbm_gb"]) * 1e9)
        assert gpu.hbm_bytes_per_s == pytest.approx(float(row["hbm_tb_per_s"]) * 1e12)
        assert gpu.domain_gpus == int(row["nvlink_domain_gpus"])
        if row["nvlink_one_way_gb_per_s"]:
            link = float(row["nvlink_one_way_gb_per_s"]) * 1e9
            assert gpu.link_bytes_per_s == link


@pytest.mark.parametrize("name", model_names())
def test_models_are_as_collected(name: str) -> None:
    """Parameters, layers, heads, cache; the bytes follow from them."""
    model = load_architecture(name)
    known = name.replace("llama-", "llama")
    for row in published("models.csv", model=known):
        assert model.params_total == pytest.approx(float(row["params_total_b"]) * 1e9)
        assert model.params_active == pytest.approx(float(row["params_active_b"]) * 1e9)
        assert model.n_layers == int(row["n_layers"])
        assert model.d_model == int(row["d_model"])
        assert model.n_heads == int(row["n_heads"])
        assert model.vocab_size == int(row["vocab_size"])
        assert model.max_context_tokens == int(row["max_context_tokens"])
        assert model.kv_bytes_per_token("fp8") == float(row["kv_bytes_per_token_fp8"])
        assert model.kv_bytes_per_token("bf16") == float(row["kv_bytes_per_token_fp16"])
        fixed = float(row["kv_fixed_bytes_per_sequence_fp8"] or 0)
        assert model.kv_fixed_bytes_per_sequence("fp8") == fixed
        assert (model.experts is not None) == bool(row["moe_experts"])
        if model.experts is not None:
            assert model.experts.count == int(row["moe_experts"])
            assert model.experts.active == int(row["moe_experts_active"])
            assert model.experts.ffn_dim == int(row["moe_ffn_dim"])


def test_names_of_the_points_are_known() -> None:
    """All but one model of the points has an architecture."""
    unknown = set()
    for point in load_points():
        try:
            load_architecture(point.model)
        except CatalogError:
            unknown.add(point.model)
    assert unknown == {"llama4-maverick"}
