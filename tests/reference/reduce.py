"""Reductions, as loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tests.reference.elementwise import places


def over(
    function: Callable[[list[float]], float], x: np.ndarray, axes: Sequence[int], keepdim: bool = False
) -> np.ndarray:
    """`function` of the list of elements along some axes, for each place of the others."""
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    terms: dict[tuple[int, ...], list[float]] = {place: [] for place in places(*kept)}
    for place in places(*x.shape):
        terms[tuple(0 if axis in axes else i for axis, i in enumerate(place))].append(float(x[place]))
    out = np.array([function(values) for values in terms.values()], dtype=np.float64).reshape(kept)
    return out if keepdim else out.reshape([size for axis, size in enumerate(x.shape) if axis not in axes])


def sum_over(x: np.ndarray, axes: Sequence[int], keepdim: bool = False) -> np.ndarray:
    """The sum over some axes."""
    return over(math.fsum, x, axes, keepdim)


def mean_over(x: np.ndarray, axes: Sequence[int], keepdim: bool = False) -> np.ndarray:
    """The mean over some axes; NaN of nothing."""
    return over(mean, x, axes, keepdim)


def mean(values: list[float]) -> float:
    """NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def variance(values: list[float], correction: float = 1) -> float:
    """Squared differences from the mean, over their number less `correction`; NaN where that is 0."""
    m, terms = mean(values), len(values) - correction
    return math.fsum((v - m) ** 2 for v in values) / terms if terms > 0 else math.nan


def logsumexp(values: list[float]) -> float:
    """-inf of nothing."""
    top = max(values, default=-math.inf)
    return top if math.isinf(top) else top + math.log(math.fsum(math.exp(v - top) for v in values))


def first_of(best: Callable[..., float], x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The best (`max` or `min`) along an axis, and the first place where it stands."""
    rows = np.moveaxis(x, axis, -1)
    values, index = np.empty(rows.shape[:-1]), np.zeros(rows.shape[:-1], dtype=np.int64)
    for place in places(*values.shape):
        row = [float(v) for v in rows[place]]
        values[place], index[place] = best(row), row.index(best(row))
    return values, index
