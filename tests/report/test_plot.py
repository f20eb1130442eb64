"""Plots: well-formed SVG, with every point where it belongs."""

from xml.etree import ElementTree as ET

from loadstone.report.plot import Dots, linear_axis, log_axis, names_axis, scatter


def test_plots_are_svg_with_a_dot_for_each_point() -> None:
    """Well-formed, every dot inside the frame, names in the legend, text escaped."""
    text = scatter(
        "a < b",
        log_axis("x", [3.0, 800.0]),
        linear_axis("y", -20, 20, 10, " %"),
        [
            Dots("one & two", [(3.0, -5.0), (800.0, 55.0)]),
            Dots("hollow", [(10.0, 0.0)], hollow=True, colour=1),
        ],
        lines=[[(1.0, 0.0), (1000.0, 0.0)]],
        band=[(1.0, -10.0), (1000.0, -10.0), (1000.0, 10.0)],
    )
    tree = ET.fromstring(text)  # noqa: S314 - our own
    svg = "{http://www.w3.org/2000/svg}"
    circles = tree.findall(f"{svg}circle")
    assert len(circles) == 3 + 2  # the legend has one for each kind
    for circle in circles:
        assert 0 < float(circle.get("cx", -1)) < 760
        assert 0 < float(circle.get("cy", -1)) < 480
    said = [element.text for element in tree.findall(f"{svg}text")]
    assert {"a < b", "one & two", "hollow", "+10 %", "0 %", "1,000"} <= set(said)
    assert "prefers-color-scheme: dark" in text


def test_axes_place_values() -> None:
    """Decades evenly, names in the middle of their share, what is beyond at the end."""
    axis = log_axis("x", [10.0, 1000.0])
    assert [axis.place(v) for v in (10.0, 100.0, 1000.0)] == [0.0, 0.5, 1.0]
    percent = linear_axis("y", -60, 60, 20, " %")
    assert (percent.place(0.0), percent.place(999.0), percent.place(-999.0)) == (
        0.5,
        1.0,
        0.0,
    )
    assert names_axis(["a", "b"]).place(1) == 0.75
