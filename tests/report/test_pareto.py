"""The picture of a sweep: every step where it belongs, axes that say what they are."""

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from loadstone.report.pareto import (
    ALL_AXIS,
    COLUMNS,
    GPU_AXIS,
    ROWS,
    Picture,
    from_zero_axis,
)


def step(users: float | None, each: float | None, **more: Any) -> dict[str, Any]:
    """Return a step of `sweep.json` that gives each user and each of 4 GPUs so much."""
    return {
        "load": f"{users} and {each}", "tok_s_per_user": users, "tok_s_per_gpu": each,
        "gpus": 4, "output_tok_s": None if each is None else 4 * each,
        "trusted": True, "grows": False,
    } | more  # fmt: skip


def picture(*steps: dict[str, Any]) -> Picture:
    """Return the picture of steps that have something to show."""
    made = Picture.of("a title", steps)
    assert made is not None
    return made


STEPS = (step(60, 100), step(50, 300), step(30, 600), step(20, 500), step(10, 700))


def test_steps_are_sorted_out() -> None:
    """(20, 500) is beaten by (30, 600), which has the largest product."""
    made = picture(*STEPS)
    assert made.kinds["beaten"] == [(20, 500)]
    assert made.kinds["frontier"] == [(60, 100), (50, 300), (30, 600), (10, 700)]
    assert made.kinds["knee"] == [(30, 600)]
    assert (made.knee_at, made.at_an_end) == ("30 and 600", False)
    assert made.frontier_loads[0] == "60 and 100"
    assert picture(*STEPS[:3]).at_an_end
    assert picture(STEPS[2]).at_an_end


@pytest.mark.parametrize("why", [{"trusted": False}, {"grows": True}])
def test_a_doubtful_step_beats_none(why: dict[str, bool]) -> None:
    """It would be the knee, and beat them all; it is drawn, and that is all."""
    made = picture(*STEPS, step(99, 999, **why))
    assert made.kinds["doubtful"] == [(99, 999)]
    assert made.knee_at == "30 and 600"
    assert picture(step(99, 999, **why)).knee_at == ""


def test_without_gpus_the_axis_is_the_whole_endpoints() -> None:
    """One step whose GPUs are unknown is enough: they could not be compared."""
    assert picture(*STEPS).y_title == GPU_AXIS
    made = picture(*STEPS, step(5, 800, gpus=None))
    assert made.y_title == ALL_AXIS
    assert made.kinds["knee"] == [(30, 2400)]


def test_steps_without_figures_are_no_points() -> None:
    """Nothing came, or one token each: there is no TPOT."""
    made = picture(*STEPS, step(None, 5), step(3, None))
    assert (len(made.points), made.y_title) == (6, GPU_AXIS)
    assert Picture.of("a title", [step(None, 5)]) is None
    assert Picture.of("a title", []) is None


def test_svg_and_text_place_the_same_points() -> None:
    """The frontier is a line through its dots; K is where the knee is."""
    made = picture(*STEPS)
    tree = ET.fromstring(made.svg())  # noqa: S314 - our own
    svg = "{http://www.w3.org/2000/svg}"
    (line,) = tree.findall(f"{svg}polyline")
    assert len(str(line.get("points")).split()) == 4
    texts = {element.text for element in tree.findall(f"{svg}text")}
    assert {"knee: 30 and 600", "frontier", GPU_AXIS, "60", "800"} <= texts
    lines = made.text()
    plot = [row.partition("|")[2].ljust(COLUMNS) for row in lines[1 : ROWS + 1]]
    found = {
        (column, row): mark
        for row, text in enumerate(plot)
        for column, mark in enumerate(text)
        if mark != " "
    }
    assert sorted(found.values()) == ["*", "*", "*", ".", "K"]
    # 30 of 60 and 600 of 800.
    assert found[round((COLUMNS - 1) / 2), round((ROWS - 1) / 4)] == "K"


@pytest.mark.parametrize(
    ("most", "labels"),
    [
        (66.5, ["0", "20", "40", "60", "80"]),
        (4879.0, ["0", "2,000", "4,000", "6,000"]),
        (0.3, ["0.0", "0.1", "0.2", "0.3"]),
        (0.0, ["0.0", "0.5"]),
    ],
)
def test_axes_end_at_a_round_number(most: float, labels: list[str]) -> None:
    """Not below the largest value, with ticks by 1, 2 or 5."""
    axis = from_zero_axis("x", most)
    assert [label for _, label in axis.ticks] == labels
    assert axis.place(0.0) == 0.0
    assert axis.place(most) <= 1.0 + 1e-9
