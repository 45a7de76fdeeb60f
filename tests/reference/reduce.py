"""Reductions, as loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.reference.elementwise import places


def sum_over(x: np.ndarray, axes: Sequence[int], keepdim: bool = False) -> np.ndarray:
    """The sum over some axes."""
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    terms: dict[tuple[int, ...], list[float]] = {place: [] for place in places(*kept)}
    for place in places(*x.shape):
        terms[tuple(0 if axis in axes else i for axis, i in enumerate(place))].append(x[place])
    out = np.array([math.fsum(values) for values in terms.values()]).reshape(kept)
    return out if keepdim else out.reshape([size for axis, size in enumerate(x.shape) if axis not in axes])


def mean_over(x: np.ndarray, axes: Sequence[int], keepdim: bool = False) -> np.ndarray:
    """The mean over some axes; NaN of nothing."""
    count = math.prod(x.shape[axis] for axis in axes)
    total = sum_over(x, axes, keepdim)
    return total / count if count else np.full(total.shape, np.nan)


def max_along(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest along an axis, and the first place where it stands."""
    rows = np.moveaxis(x, axis, -1)
    values, index = np.empty(rows.shape[:-1]), np.zeros(rows.shape[:-1], dtype=np.int64)
    for place in places(*values.shape):
        row = [float(v) for v in rows[place]]
        values[place], index[place] = max(row), row.index(max(row))
    return values, index
