"""Softmax and losses, as loops."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.elementwise import elementwise, places
from tests.reference.reduce import mean_over, sum_over


def log_softmax(z: np.ndarray, axis: int) -> np.ndarray:
    """Along one axis."""
    rows = np.moveaxis(z, axis, -1)
    out = np.empty(rows.shape)
    for place in places(*rows.shape[:-1] if rows.size else (0,)):
        top = max(rows[place])
        total = math.log(math.fsum(math.exp(v - top) for v in rows[place]))
        out[place] = [v - top - total for v in rows[place]]
    return np.moveaxis(out, -1, axis)


def softmax(z: np.ndarray, axis: int) -> np.ndarray:
    """Along one axis."""
    return elementwise(math.exp, log_softmax(z, axis))


def nll(x: np.ndarray, target: np.ndarray, reduction: str = "none") -> np.ndarray:
    """Minus each row's entry at its target, summed or averaged if asked to."""
    losses = np.array([-row[t] for row, t in zip(x, target, strict=True)])
    return {"none": lambda a: a, "sum": lambda a: sum_over(a, [0]), "mean": lambda a: mean_over(a, [0])}[reduction](
        losses
    )


def cross_entropy(z: np.ndarray, target: np.ndarray, reduction: str = "none") -> np.ndarray:
    """The negative log-likelihood of the softmax."""
    return nll(log_softmax(z, 1), target, reduction)
