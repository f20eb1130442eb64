"""The glossary names every figure of a summary, and the document shows it as it is."""

from pathlib import Path

from loadstone.traffic.glossary import GLOSSARY, glossary, glossary_markdown, peers_text
from loadstone.traffic.record import Outcome
from loadstone.traffic.summary import LATENCIES, summarize

DOCUMENT = Path(__file__).parents[2] / "docs" / "statistics.md"
NAMES = {term.name for term in glossary()}


def test_every_figure_is_explained() -> None:
    """Latencies, rates, outcomes: what a summary has, the glossary has."""
    summary = summarize([])
    counted = {outcome.value for outcome in Outcome} | {"dropped", "warmup"}
    assert {
        *LATENCIES,
        "icl_s",
        "makespan_s",
        *summary["throughput"],
        *counted,
    } <= NAMES


def test_names_are_unique_and_in_order_of_chapters() -> None:
    """A word has one meaning."""
    assert len(NAMES) == len(glossary())
    assert [t for terms in GLOSSARY.values() for t in terms] == list(glossary())


def test_the_document_shows_the_table_as_it_is() -> None:
    """Paste `glossary_markdown()` there where it differs."""
    assert glossary_markdown() in DOCUMENT.read_text()


def test_a_row_of_markdown_is_a_row() -> None:
    """No cell has a bar of its own, so each line has as many as its head."""
    lines = [line for line in glossary_markdown().splitlines() if line[:1] == "|"]
    assert {line.count("|") for line in lines} == {6}
    assert len(lines) == len(glossary()) + 2 * len(GLOSSARY)


def test_others_are_named_with_their_word() -> None:
    """In a line, in order."""
    (tpot,) = (term for term in glossary() if term.name == "tpot_s")
    assert peers_text(tpot).startswith("MLPerf Endpoints: TPOT, the same; vLLM bench: ")
