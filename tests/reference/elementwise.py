"""Element-by-element ops, as loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np


def places(*sizes: int) -> Iterator[tuple[int, ...]]:
    return np.ndindex(*sizes)


def elementwise(fn: Callable[..., float], *arrays: np.ndarray) -> np.ndarray:
    """fn of each element, or of each pair of the two broadcast arrays."""
    out = np.empty(np.broadcast_shapes(*(a.shape for a in arrays)))
    for place, values in zip(places(*out.shape), np.broadcast(*arrays), strict=True):
        out[place] = fn(*(float(v) for v in values))
    return out
