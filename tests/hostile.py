"""Strings that would do something, if anybody let them."""

from typing import Any

PAYLOADS = (
    "<script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=2">',
    "'><svg onload=window.pwned=3>",
    "</style></title></svg><script>window.pwned=4</script>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe \x00\x1b[31m \ud800",
    '=HYPERLINK("http://127.0.0.1:9/","a")',
    "]] ``` <!-- | [a](javascript:window.pwned=5)",
)
HOSTILE = " ".join(PAYLOADS)


def poisoned(value: Any) -> Any:
    """Return the same with every string, at any depth, made hostile; keys stay."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, dict):
        return {key: poisoned(inner) for key, inner in value.items()}
    return [poisoned(inner) for inner in value] if isinstance(value, list) else value
