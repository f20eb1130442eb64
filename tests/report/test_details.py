"""Blocks that the page has no place for are shown as they are."""

from loadstone.report.details import details


def test_unknown_blocks_are_flattened() -> None:
    """Nested and listed values by their path; what has a place elsewhere is not."""
    summary = {
        "requests": {"sent": 3},
        "server": {"vllm": {"running": 4.0, "name": "<b>", "none": None}},
        "shares": [{"rank": 0, "lost": False}, {"rank": 1, "lost": True}],
        "rates": [1.5, 2.5],
        "empty": {},
    }
    assert dict(details(summary)) == {
        "server": [("vllm.running", "4"), ("vllm.name", "<b>")],
        "shares": [
            ("[0].rank", "0"), ("[0].lost", "no"), ("[1].rank", "1"),
            ("[1].lost", "yes"),
        ],
        "rates": [("", "1.5; 2.5")],
    }  # fmt: skip


def test_long_blocks_are_cut_and_say_so() -> None:
    """At sixty lines nothing is."""
    block = {str(i): i for i in range(61)}
    ((_, lines),) = details({"block": block})
    assert len(lines) == 61
    assert lines[-1] == ("", "and 1 more, in summary.json")
    block.pop("60")
    ((_, lines),) = details({"block": block})
    assert lines[-1] == ("59", "59")
