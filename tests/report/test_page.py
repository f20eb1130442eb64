"""The page in a real browser: offline, drawn, printed, and harmless."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w
from chromium import Page, chromium
from hostile import HOSTILE, PAYLOADS, poisoned
from run_folders import made_up

from loadstone.report.document import gather
from loadstone.report.html import page
from loadstone.report.written import FORMATS, rendered
from loadstone.runs import RunFiles

CHARTS = {
    "tokens", "requests", "ttft", "tpot", "in_flight", "heat", "cdf_ttft_s",
    "cdf_tpot_s", "cdf_e2e_s", "tails",
}  # fmt: skip
DRAWN = """
Object.fromEntries([...document.querySelectorAll("figure[data-chart]")].map(figure => {
  const svg = figure.querySelector("svg"), all = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll(".line, .dot, .bar rect, [class^=h]")]
    .map(m => ({box: m.getBoundingClientRect(), style: getComputedStyle(m)}));
  return [figure.dataset.chart, {
    width: all.width, height: all.height,
    marks: marks.filter(({box}) => box.width > 20 || box.height > 20).length,
    coloured: marks.every(({style}) => style.stroke + style.fill !== "nonenone"),
    outside: [...svg.querySelectorAll("text, .line")].filter(mark => {
      const box = mark.getBoundingClientRect();
      return box.left < all.left - 12 || box.right > all.right + 12
        || box.top < all.top - 2 || box.bottom > all.bottom + 2;
    }).length,
    label: svg.getAttribute("aria-label"),
  }];
}))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Run one Chromium for all of these tests."""
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def shown(browser: Page, folder: Path, to: Path) -> Path:
    """Make the page of a run and open it."""
    to.write_bytes(page(gather(RunFiles.open(folder))))
    browser.events.clear()
    browser.open(to)
    return to


def test_every_chart_is_drawn_without_a_network(
    browser: Page, run_folder: Path, tmp_path: Path
) -> None:
    """Lines lie inside their frames; nothing is fetched, nothing complained of."""
    at = shown(browser, run_folder, tmp_path / "report.html")
    drawn = browser.ask(DRAWN)
    assert set(drawn) == CHARTS
    for name, chart in drawn.items():
        assert chart["width"] > 200, name
        assert chart["height"] > 80, name
        assert chart["marks"] > 0, name
        assert chart["coloured"], name
        assert chart["outside"] == 0, name
        assert chart["label"], name
    assert browser.complaints == []
    assert browser.fetched == [at.resolve().as_uri()[:60]]
    assert browser.ask("document.documentElement.scrollWidth <= innerWidth")


def test_the_first_page_says_what_was_decided(
    browser: Page, run_folder: Path, tmp_path: Path
) -> None:
    """Objectives, money, validity and that no GPU was measured."""
    shown(browser, run_folder, tmp_path / "report.html")
    said = browser.ask('document.querySelector("header").innerText')
    said += browser.ask('document.querySelector("#decision").innerText')
    summary = json.loads((run_folder / "summary.json").read_text())
    steady = summary["throughput"]["steady_output_tok_s"]
    for words in (
        "1 of 2 objectives missed", "✓ met", "✗ missed", f"{steady:,.0f}",
        "per million output tokens", "The measuring side kept up",
        "No server, no network and no GPU was measured", "of the warm-up",
    ):  # fmt: skip
        assert words in said


def test_it_prints_on_a4(browser: Page, run_folder: Path, tmp_path: Path) -> None:
    """In a few pages, light whatever the screen is."""
    shown(browser, run_folder, tmp_path / "report.html")
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert 3 <= len(boxes) <= 10
    assert {(round(float(w)), round(float(h))) for w, h in boxes} == {(595, 842)}


def test_screens_may_be_dark_and_narrow(
    browser: Page, run_folder: Path, tmp_path: Path
) -> None:
    """Dark where the reader's is, light on paper; a phone scrolls one way only."""
    shown(browser, run_folder, tmp_path / "report.html")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    try:
        browser.call("Emulation.setEmulatedMedia", media="screen", features=dark)
        assert browser.ask(ground) == "rgb(17, 22, 27)"
        browser.call("Emulation.setEmulatedMedia", media="print", features=dark)
        assert browser.ask(ground) == "rgb(255, 255, 255)"
        browser.call("Emulation.setEmulatedMedia", media="", features=[])
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=390, height=800, deviceScaleFactor=1, mobile=True,
        )  # fmt: skip
        assert browser.ask("document.documentElement.scrollWidth") <= 390
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")
        browser.call("Emulation.setEmulatedMedia", media="", features=[])


@pytest.fixture
def poisoned_folder(run_folder: Path, tmp_path: Path) -> Path:
    """Return the run with each string of summary, plan, environment, rows hostile."""
    folder = tmp_path / "run"
    made_up(Path(shutil.copytree(run_folder, folder)))
    run = RunFiles.open(folder)
    summary = run.summary() or {}
    summary["errors"] = dict.fromkeys(PAYLOADS, 3)
    summary["instrument"]["reasons"] = ["because"]
    environment = run.environment() | {"mock": {"preset": "x", "vms": 1}}
    tariff = summary["cost"].pop("tariff")
    hostile_summary = poisoned(summary)
    hostile_summary["cost"]["tariff"] = tariff | {"title": HOSTILE}
    (folder / "summary.json").write_text(json.dumps(hostile_summary))
    (folder / "environment.json").write_text(json.dumps(poisoned(environment)))
    # TOML has no half characters.
    plan = json.loads(json.dumps(poisoned(run.plan())).replace("\\ud800", ""))
    (folder / "plan.toml").write_text(tomli_w.dumps(plan))
    rows = (folder / "requests.jsonl").read_text().splitlines()
    keep = ("outcome", "tokens_source")
    texts = {"error": "x", "error_kind": "x", "tenant": "x", "stage": "x"}
    with (folder / "requests.jsonl").open("w") as out:
        for line in rows:
            row = json.loads(line) | texts
            hostile = poisoned(row) | {k: row[k] for k in keep if k in row}
            out.write(json.dumps(hostile).replace("\\ud800", "") + "\n")
    series = {"t": 1.0, "source": HOSTILE, "values": dict.fromkeys(PAYLOADS, 1.0)}
    lines = [json.dumps(series | {"t": t}) + "\n" for t in (1, 2, 3, 4)]
    (folder / "server_metrics.jsonl").write_text("".join(lines))
    return folder


def test_hostile_strings_are_shown_and_do_nothing(
    browser: Page, poisoned_folder: Path, tmp_path: Path
) -> None:
    """No script, no image, no style of theirs: the words are there to be read."""
    shown(browser, poisoned_folder, tmp_path / "report.html")
    assert browser.ask("window.pwned") is None
    for tag in ("script", "img", "iframe", "a", "form", "object", "link"):
        assert browser.ask(f"document.getElementsByTagName('{tag}').length") == 0
    assert browser.ask("document.getElementsByTagName('style').length") == 1
    assert browser.ask("document.querySelectorAll('[onload],[onerror]').length") == 0
    said = browser.ask("document.body.textContent")
    for payload in PAYLOADS[:5]:
        assert payload in said
    assert "\u202e" not in said
    assert "\\u202egnp.exe" in said
    assert len(browser.fetched) == 1
    assert browser.complaints == []


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_a_hostile_run_is_utf_8(
    poisoned_folder: Path, form: str
) -> None:
    """And has no control character in it."""
    whole = b"".join(rendered(RunFiles.open(poisoned_folder), form))
    text = whole.decode()
    assert not set(map(chr, range(32))) - {"\n"} & set(text)
    assert "gnp.exe" in text


def test_the_policy_forbids_everything_but_our_style(run_folder: Path) -> None:
    """No source is allowed, and the style is named by its hash."""
    text = page(gather(RunFiles.open(run_folder))).decode()
    (policy,) = re.findall(r'Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    assert "://" not in re.sub(r"https?://127\.0\.0\.1[^<\"]*", "", text)
    assert " style=" not in text
