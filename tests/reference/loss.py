"""Softmax and losses, as loops."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.elementwise import elementwise, places


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


def reduced(losses: np.ndarray, reduction: str, parts: float | None = None) -> np.ndarray:
    """The losses, their sum, or that over `parts`, which are as many as there are losses if not given."""
    if reduction == "none":
        return losses
    total = math.fsum(losses.flat)
    parts = losses.size if parts is None else parts
    return np.array(total if reduction == "sum" else total / parts if parts else math.nan)


def nll(
    x: np.ndarray, target: np.ndarray, reduction: str = "none", weight: np.ndarray | None = None, ignored: int = -100
) -> np.ndarray:
    """Minus each row's entry at its target, times that class's weight."""
    losses, counted = np.zeros(target.shape), []
    for place in places(*target.shape):
        label = int(target[place])
        if label != ignored:
            counted.append(1.0 if weight is None else weight[label])
            losses[place] = -x[*place, label] * counted[-1]
    return reduced(losses, reduction, math.fsum(counted))


def cross_entropy(
    z: np.ndarray, target: np.ndarray, reduction: str = "none", weight: np.ndarray | None = None, ignored: int = -100,
    smoothing: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """That of the softmax with class numbers or probabilities, `smoothing` of which are spread over all classes."""
    classes, logs = z.shape[-1], log_softmax(z, -1)
    soft = target.shape == z.shape
    losses, counted = np.zeros(z.shape[:-1]), []
    for place in places(*losses.shape):
        if not soft and target[place] == ignored:
            continue
        for c in range(classes):
            q = target[*place, c] if soft else float(target[place] == c)
            q = q * (1 - smoothing) + smoothing / classes
            losses[place] -= q * (1.0 if weight is None else weight[c]) * logs[*place, c]
        counted.append(1.0 if weight is None or soft else weight[target[place]])
    return reduced(losses, reduction, math.fsum(counted))


def bce_with_logits(x: np.ndarray, target: np.ndarray, weight: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """-weight * (positive * target * log(p) + (1 - target) * log(1 - p)), p the sigmoid of x, element by element."""

    def loss(v: float, t: float, w: float, p: float) -> float:
        return w * (p * t * math.log1p(math.exp(-v)) + (1 - t) * math.log1p(math.exp(v)))

    return elementwise(loss, x, target, weight, positive)
