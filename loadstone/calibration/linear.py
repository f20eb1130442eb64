"""The little linear algebra that a fit of a few factors takes."""

from collections.abc import Sequence

Matrix = list[list[float]]


def normal(slopes: Sequence[Sequence[float]], noise: float, prior: float) -> Matrix:
    """Return what rows of `slopes` tell of their columns, and a prior around 0.

    `noise` and `prior` are standard deviations; the inverse is the covariance.
    """
    width = len(slopes[0])
    return [
        [
            sum(row[i] * row[j] for row in slopes) / noise**2
            + (1.0 / prior**2 if i == j else 0.0)
            for j in range(width)
        ]
        for i in range(width)
    ]


def inverse(matrix: Sequence[Sequence[float]]) -> Matrix:
    """Invert a positive definite matrix: Gauss-Jordan, which needs no pivoting then."""
    size = len(matrix)
    rows = [
        [*row, *(1.0 if i == j else 0.0 for j in range(size))]
        for i, row in enumerate(matrix)
    ]
    for i, lead in enumerate(rows):
        pivot = lead[i]
        lead[:] = [x / pivot for x in lead]
        for j, row in enumerate(rows):
            if j != i:
                factor = row[i]
                row[:] = [x - factor * y for x, y in zip(row, lead, strict=True)]
    return [row[size:] for row in rows]
