"""Normalisation, as loops."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.elementwise import places


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel of x (..., C)."""
    columns = x.reshape(-1, x.shape[-1]).T
    means = [math.fsum(column) / len(column) for column in columns]
    squares = [math.fsum((v - m) ** 2 for v in column) for column, m in zip(columns, means, strict=True)]
    return np.array(means), np.array([s / columns.shape[1] for s in squares])


def batch_norm(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray | None = None,
    variance: np.ndarray | None = None,
    eps: float = 1e-5,
) -> np.ndarray:
    """By the given mean and variance, or by the batch's own."""
    if x.size == 0:
        return x.copy()
    if mean is None or variance is None:
        mean, variance = moments(x)
    out = np.empty(x.shape)
    for *lead, c in places(*x.shape):
        out[*lead, c] = gamma[c] * (x[*lead, c] - mean[c]) / math.sqrt(variance[c] + eps) + beta[c]
    return out


def group_norm(
    x: np.ndarray, groups: int, gamma: np.ndarray | None = None, beta: np.ndarray | None = None, eps: float = 1e-5
) -> np.ndarray:
    """Each group of channels of each example of x (N, ..., C) by its own mean and variance."""
    out = np.empty(x.shape)
    size = x.shape[-1] // groups
    for n, group in places(len(x), groups):
        channels = slice(group * size, (group + 1) * size)
        mean, variance = moments(x[n, ..., channels].reshape(-1, 1))
        for *lead, c in places(*x.shape[1:-1], size):
            value = (x[n, *lead, channels][c] - mean[0]) / math.sqrt(variance[0] + eps)
            k = channels.start + c
            out[n, *lead, k] = value * (1 if gamma is None else gamma[k]) + (0 if beta is None else beta[k])
    return out


def layer_norm(
    x: np.ndarray, shape: tuple[int, ...], gamma: np.ndarray | None = None, beta: np.ndarray | None = None,
    eps: float = 1e-5,
) -> np.ndarray:  # fmt: skip
    """Each example, of the given shape, by its own mean and variance: one group of as many channels as elements."""
    flat = [None if v is None else v.reshape(-1) for v in (gamma, beta)]
    rows = x.reshape(math.prod(x.shape[: x.ndim - len(shape)]), math.prod(shape))
    return group_norm(rows, 1, *flat, eps).reshape(x.shape)


def batch_norm_grad(gy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """The gradient of x through batch norm by the batch's own statistics."""
    mean, variance = moments(x)
    out = np.empty((x.size // len(gamma), len(gamma)))
    for c, g in enumerate(gy.reshape(-1, len(gamma)).T):
        xhat = (x.reshape(-1, len(gamma))[:, c] - mean[c]) / math.sqrt(variance[c] + eps)
        average, slope = math.fsum(g) / len(g), math.fsum(g * xhat) / len(g)
        out[:, c] = gamma[c] / math.sqrt(variance[c] + eps) * (g - average - xhat * slope)
    return out.reshape(x.shape)
