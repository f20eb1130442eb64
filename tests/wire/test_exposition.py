"""Pages of metrics, as servers write them and as nobody should."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadstone.wire.exposition import MAX_SAMPLES, samples

PAGE = """# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
plain 1e3
stamped{a="b"} 7 1395066363000
exemplar_bucket{le="0.1"} 4 # {trace_id="x"} 0.05
odd{path="C:\\\\DIR\\n",brace="}",quote="a\\"b",empty=""} +Inf
not_a_number{a="b"} many
no value
{nameless="1"} 3
"""


def test_a_page() -> None:
    """Names, labels, values; stamps, exemplars, comments and nonsense are skipped."""
    found = list(samples(PAGE))
    assert [(s.name, s.value) for s in found] == [
        ("vllm:num_requests_running", 3.0), ("plain", 1000.0), ("stamped", 7.0),
        ("exemplar_bucket", 4.0), ("odd", float("inf")),
    ]  # fmt: skip
    assert found[0].labels == {"engine": "0", "model_name": "m"}
    assert found[1].labels == {}
    assert found[4].labels == {
        "path": "C:\\DIR\n", "brace": "}", "quote": 'a"b', "empty": "",
    }  # fmt: skip


@given(st.text(alphabet='abc{}="\\, 1\n#', max_size=200))
def test_anything_can_be_read(text: str) -> None:
    """Nothing raises."""
    list(samples(text))


@pytest.mark.parametrize("line", ["a{" + 'x="' * 20_000, "a" * 200_000, "a{" * 50_000])
def test_hostile_lines_cost_little(line: str) -> None:
    """No line makes the search go back and forth."""
    began = time.process_time()
    list(samples(line))
    assert time.process_time() - began < 2


def test_a_page_without_end_is_cut() -> None:
    """So many samples are read, and no more."""
    assert sum(1 for _ in samples("a 1\n" * (MAX_SAMPLES + 5))) == MAX_SAMPLES
