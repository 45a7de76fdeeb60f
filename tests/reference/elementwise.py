"""Element-by-element ops, as loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np


def places(*sizes: int) -> Iterator[tuple[int, ...]]:
    return np.ndindex(*sizes)


def elementwise(fn: Callable[..., float], *arrays: np.ndarray) -> np.ndarray:
    """fn of each element, or of each group of the arrays, broadcast."""
    out = np.empty(np.broadcast_shapes(*(a.shape for a in arrays)))
    for place, values in zip(places(*out.shape), np.broadcast(*arrays), strict=True):
        out[place] = fn(*(float(v) for v in values))
    return out


def held(v: float, low: float | None, high: float | None) -> float:
    """v between two bounds, of which the upper one wins."""
    v = v if low is None else max(v, low)
    return v if high is None else min(v, high)


def gelu(v: float) -> float:
    return v * math.erfc(-v / math.sqrt(2)) / 2


def gelu_tanh(v: float) -> float:
    return v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2
