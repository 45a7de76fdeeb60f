"""Rearrangements, as loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.reference.elementwise import places


def reshape(x: np.ndarray, *shape: int) -> np.ndarray:
    """The elements in their order under another shape."""
    out = np.empty(shape)
    for place, source in zip(places(*shape), places(*x.shape), strict=True):
        out[place] = x[source]
    return out


def permute(x: np.ndarray, *order: int) -> np.ndarray:
    """The dimensions in another order."""
    out = np.empty([x.shape[axis] for axis in order])
    for place in places(*x.shape):
        out[tuple(place[axis] for axis in order)] = x[place]
    return out


def pick(rows: Any, where: tuple[Any, ...]) -> Any:
    """Nested lists by numbers, slices and None."""
    if not where:
        return rows
    first, rest = where[0], where[1:]
    if first is None:
        return [pick(rows, rest)]
    return [pick(row, rest) for row in rows[first]] if isinstance(first, slice) else pick(rows[first], rest)
