"""`--sweep` in virtual time: each step a run, the plot, the knee, going on."""

import json
import xml.etree.ElementTree as ET

import pytest
from simulated import Ran, Simulate

from loadstone.traffic.pareto import frontier, knee

BRIEF = (
    "--duration", "20s", "--warmup", "5s", "--max-num-seqs", "32",
)  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def sweep(simulate: Simulate, what: str, *args: str, json: bool = True) -> Ran:
    """Sweep a small machine, briefly."""
    return simulate("--sweep", what, *BRIEF, *args, json=json)


def test_users_are_swept_and_the_figures_are_the_runs_own(simulate: Simulate) -> None:
    """Each step is a run folder; frontier and knee are those of its figures."""
    ran = sweep(simulate, "users=4:64:x4,128")
    found = ran.document
    assert ran.code == 0
    assert json.loads((ran.folder / "sweep.json").read_text()) == found
    steps = found["steps"]
    assert [step["users"] for step in steps] == [4, 16, 64, 128]
    points = []
    for step in steps:
        kept = json.loads((ran.folder / step["folder"] / "summary.json").read_text())
        rate, tpot = kept["throughput"]["steady_output_tok_s"], kept["tpot_s"]["p50"]
        assert kept["loop"] == "closed"
        assert (step["output_tok_s"], step["gpus"]) == (rate, 4)
        points.append((1 / tpot, rate / 4))
        assert (step["tok_s_per_user"], step["tok_s_per_gpu"]) == points[-1]
    at = knee(points)
    assert at is not None
    assert found["knee"]["load"] == steps[at]["load"]
    assert found["frontier"] == [steps[i]["load"] for i in frontier(points)]
    # More users: more of the machine, less for each.
    assert points == sorted(points, reverse=True)
    assert sorted(y for _, y in points) == [y for _, y in points]


def test_the_picture_has_every_step(simulate: Simulate) -> None:
    """A dot for each, as SVG and in characters; what does not last is left out."""
    ran = sweep(simulate, "rate=4:16:x2,200", "--seed", "3", json=False)
    drawn = ET.parse(ran.folder / "pareto.svg").getroot()  # noqa: S314 - our own file
    dots = drawn.findall(f"{SVG}circle")
    texts = [text.text for text in drawn.findall(f"{SVG}text")]
    kinds = [t for t in texts if t in ("frontier", "left out") or "knee" in str(t)]
    # One of the frontier is drawn again as its knee; each kind has one in the legend.
    assert len(dots) == 4 + 1 + len(kinds)
    assert "left out" in texts
    assert "output tokens/s for each GPU" in texts
    assert "not sustained, the backlog grew, and left out: 200.00 requests/s" in ran.out
    plot = ran.out[ran.out.index("for each GPU") : ran.out.index("* frontier")]
    assert plot.count("K") == 1
    assert plot.count("*") == 2
    assert (
        plot.count("o")
        - plot.count("output")
        - plot.count("for")
        - plot.count("tokens")
        == 1
    )
    assert "knee: 16.00 requests/s" in ran.out
    assert "it may lie beyond the sweep" in ran.out


def test_gpus_may_be_said(simulate: Simulate) -> None:
    """And then the figures are divided by so many."""
    (step,) = sweep(simulate, "rate=16", "--gpus", "8").document["steps"]
    assert step["tok_s_per_gpu"] == step["output_tok_s"] / 8


def test_a_sweep_goes_on_where_it_was(simulate: Simulate) -> None:
    """What was tried is not tried again; another sweep is refused."""
    whole = sweep(simulate, "rate=8,16,24")
    path = whole.folder / "sweep.json"
    path.write_text(json.dumps(whole.document | {"steps": whole.document["steps"][:1]}))
    resumed = ("--resume", str(whole.folder))
    again = sweep(simulate, "rate=8,16,24", *resumed).document
    assert again["steps"][0] == whole.document["steps"][0]
    figures = ("load", "throughput", "tpot_s", "verdict")
    assert [{k: s[k] for k in figures} for s in again["steps"]] == [
        {k: s[k] for k in figures} for s in whole.document["steps"]
    ]
    refused = sweep(simulate, "rate=8,16", *resumed)
    assert refused.code == 2
    assert (
        "sweep 'rate=8,16,24' became 'rate=8,16'"
        in (refused.document["error"]["message"])
    )


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--sweep", "rate=1,x"), "at character 8: 'x' is not a number"),
        (("--sweep", "rate=1", "--find-max"), "give one of them"),
        (("--sweep", "rate=1", "--rate", "5"), "leave --rate out"),
        (("--sweep", "users=1", "--users", "5"), "leave --users out"),
        (("--sweep", "rate=1", "--tolerance", "0.1"), "--tolerance is for a search"),
        (("--rate", "5", "--gpus", "4"), "--gpus is for a sweep"),
        (("--rate", "5", "--resume", "."), "goes on with a search or a sweep"),
        (("--sweep", "rate=1", "--resume", "."), "no sweep.json in ."),
    ],
)
def test_what_cannot_be_swept_is_refused(
    simulate: Simulate, args: tuple[str, ...], why: str
) -> None:
    """Before anything was tried, and without a folder."""
    ran = simulate(*args)
    assert ran.code == 2
    assert why in ran.document["error"]["message"]
    assert not ran.folder.exists()
