"""Batch norm: statistics over the rows of an (M, C) array, their application, and the gradient.

A mean travels as two numbers, hi + lo, since one float32 cannot hold the mean of values at mean/std = 1e6: x - hi is
exact there, and lo is what rounding took from hi. Scale and shift are never applied to raw x.
"""

from __future__ import annotations

from typing import NamedTuple

from ...device import Array, array_module
from ..dispatch import kernel, quiet
from .reduce import column_sum


class BatchStatistics(NamedTuple):
    """Per channel (C,), in x's dtype: the mean as hi + lo, the biased variance, and 1 / sqrt(variance + eps)."""

    hi: Array
    lo: Array
    variance: Array
    invstd: Array


@kernel
def batch_norm_statistics(x: Array, eps: float) -> BatchStatistics:
    """Mean and variance of each column of x (M, C): two passes, the second on x - hi, whose squares lose no digits."""
    rows = len(x) or 1  # an empty batch has mean 0
    with quiet():  # a square may overflow: then the variance is inf and invstd 0
        hi = (column_sum(x) / rows).astype(x.dtype)
        d = x - hi
        lo = column_sum(d) / rows
        return finish_statistics(hi, lo, column_sum(d * d) / rows, eps)


def finish_statistics(hi: Array, lo: Array, square: Array, eps: float) -> BatchStatistics:
    """Statistics from hi, and from the float64 means of x - hi and of its square."""
    xp = array_module(hi)
    with quiet():
        variance = xp.maximum(square - lo * lo, 0)
        invstd = 1 / xp.sqrt(variance + eps)
        return BatchStatistics(hi, lo.astype(hi.dtype), variance.astype(hi.dtype), invstd.astype(hi.dtype))


@kernel
def batch_norm_apply(
    x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array, beta: Array, add: Array | None, relu: bool
) -> Array:
    """y = (x - hi - lo) * invstd * gamma + beta, then + add, then ReLU; x, y and add (M, C), the others (C,)."""
    a = invstd * gamma
    y = x - hi
    y *= a
    y += beta - lo * a
    if add is not None:
        y += add
    if relu:
        array_module(x).maximum(y, 0, out=y)
    return y


@kernel
def batch_norm_grad(
    gy: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    """gx (M, C), ggamma and gbeta (C,) of batch norm in training, where hi, lo and invstd depend on x.

    With d = x - hi - lo and xhat = d * invstd:
    gx = gamma * invstd * (gy - mean(gy) - xhat * mean(gy * xhat))
    """
    d = x - hi
    gbeta = column_sum(gy)
    ggamma = (column_sum(gy * d) - lo * gbeta) * invstd
    a, b, c = grad_coefficients(len(x) or 1, lo, invstd, gamma, ggamma, gbeta)
    d *= b
    gx = gy * a
    gx += d
    gx += c
    return gx, ggamma.astype(x.dtype), gbeta.astype(x.dtype)


def grad_coefficients(
    rows: int, lo: Array, invstd: Array, gamma: Array, ggamma: Array, gbeta: Array
) -> tuple[Array, Array, Array]:
    """a, b, c with gx = a*gy + b*(x - hi) + c, for sums ggamma and gbeta in float64."""
    a = gamma * invstd
    b = -a * invstd * ggamma / rows
    c = -a * gbeta / rows - b * lo
    return a, b.astype(a.dtype), c.astype(a.dtype)
