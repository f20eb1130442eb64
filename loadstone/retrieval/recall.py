"""How well a store finds the documents that answer labelled questions."""

from collections.abc import Iterable, Sequence
from typing import Final

from .store import Hit

DEPTHS: Final = (1, 3, 5, 10)
"""The `k` of the recalls that are told."""


def recall(hits: Iterable[Hit], relevant: Sequence[str]) -> float | None:
    """Return the share of the relevant documents that are among `hits`.

    None where nobody said which documents are relevant.
    """
    if not relevant:
        return None
    found = {hit.document for hit in hits}
    return sum(name in found for name in relevant) / len(relevant)


def recall_at(
    found: Sequence[tuple[Sequence[Hit], Sequence[str]]], k: int
) -> float | None:
    """Return the mean recall of the `k` best hits, over the labelled questions."""
    each = [recall(hits[:k], relevant) for hits, relevant in found]
    labelled = [value for value in each if value is not None]
    return sum(labelled) / len(labelled) if labelled else None
