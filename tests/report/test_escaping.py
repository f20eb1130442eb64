"""Text from elsewhere does nothing, wherever it is shown."""

import csv
import html
import unicodedata
from io import StringIO

import pytest
from hostile import HOSTILE, PAYLOADS
from hypothesis import given
from hypothesis import strategies as st

from loadstone.report.escaping import (
    cell,
    escaped,
    markdown,
    shortened,
    visible,
    without_secrets,
)

ANY_TEXT = st.text(st.characters())


@given(ANY_TEXT)
def test_escaped_text_holds_no_markup_and_nothing_unseen(text: str) -> None:
    """It is UTF-8, and unescaping gives what it says."""
    safe = escaped(text)
    safe.encode()
    assert not set("<>\"'") & set(safe)
    assert html.unescape(safe) == visible(text)
    kinds = {unicodedata.category(c) for c in safe.replace("\n", "")}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@given(ANY_TEXT)
def test_no_cell_is_a_formula(text: str) -> None:
    """A CSV reader gives back what was written, and a spreadsheet takes it as text."""
    out = StringIO()
    csv.writer(out).writerow([cell(text)])
    ((read,),) = csv.reader(StringIO(out.getvalue()))
    assert read == cell(text)
    assert not read.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert read.removeprefix("'") in (visible(text), visible(text).removeprefix("'"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "True"), (-0.5, "-0.5"), (1e-06, "0.000001"), (3, "3")],
)
def test_numbers_stay_numbers(value: object, text: str) -> None:
    """A minus sign makes a formula of text alone."""
    assert cell(value) == text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_is_text(payload: str) -> None:
    """No link, no HTML, no new cell."""
    safe = markdown(payload)
    for special in "<>|[]`*":
        assert safe.count(special) == safe.count(f"\\{special}")
    assert "\n" not in safe


def test_what_is_not_seen_is_written_out() -> None:
    """A reversed file name, a bell and half a character."""
    assert visible("\u202ea\x07\ud800é") == "\\u202ea\\u0007\\ud800é"
    visible(HOSTILE).encode()


def test_addresses_lose_what_may_be_secret() -> None:
    """User, password and the values of a query; the rest of an address stays."""
    told = 'host = "https://me:s3cret@llm.example/v1?key=abc&x=1" # a=b'
    assert without_secrets(told) == (
        'host = "https://…@llm.example/v1?key=…&x=…" # a=b'
    )
    assert without_secrets("http://127.0.0.1:8000/v1") == "http://127.0.0.1:8000/v1"


def test_long_text_is_cut_and_says_so() -> None:
    """At the limit nothing is."""
    assert shortened("a" * 200) == "a" * 200
    assert shortened("a" * 201) == "a" * 199 + "…"
