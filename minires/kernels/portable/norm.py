"""Batch norm over the rows of an (M, C) array, and group norm over parts of each example.

A mean travels as two numbers, hi + lo, since one float32 cannot hold the mean of values at mean/std = 1e6: x - hi is
exact there, and lo is what rounding took from hi. Scale and shift are never applied to raw x.
"""

from __future__ import annotations

from typing import NamedTuple

from ...device import Array, array_module
from ..dispatch import kernel, quiet
from .activation import relu_grad
from .reduce import column_sum, sum_axes


class BatchStatistics(NamedTuple):
    """Per channel (C,), in x's dtype: the mean as hi + lo, the biased variance, and 1 / sqrt(variance + eps)."""

    hi: Array
    lo: Array
    variance: Array
    invstd: Array


class Normalised(NamedTuple):
    """y, and the mean as hi + lo and 1 / sqrt(variance + eps) of what was normalised together."""

    y: Array
    hi: Array
    lo: Array
    invstd: Array


class NormGradients(NamedTuple):
    """Gradients in the dtype that they were computed in: float32 for a float16 x, whose weights may be float32."""

    x: Array
    weight: Array | None
    bias: Array


@kernel
def batch_norm_statistics(x: Array, eps: float) -> BatchStatistics:
    """Mean and variance of each column of x (M, C): two passes, the second on x - hi, whose squares lose no digits."""
    rows = len(x) or 1  # an empty batch has mean 0
    with quiet():  # a square may overflow: then the variance is inf and invstd 0
        hi = (column_sum(x) / rows).astype(x.dtype)
        d = x - hi
        lo = column_sum(d) / rows
        return finish_statistics(hi, lo, column_sum(d * d) / rows - lo * lo, eps)


def finish_statistics(hi: Array, lo: Array, variance: Array, eps: float) -> BatchStatistics:
    """Statistics from hi, and from lo and the variance in float64, which rounding may have taken below 0."""
    xp = array_module(hi)
    with quiet():
        variance = xp.maximum(variance, 0)
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
def batch_norm_grad(gy: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array) -> NormGradients:
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
    return NormGradients(gx, ggamma.astype(x.dtype), gbeta.astype(x.dtype))


@kernel
def batch_norm_relu_grad(
    gy: Array, y: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array, keep: bool
) -> tuple[NormGradients, Array | None]:
    """batch_norm_grad of g, and g (M, C) if it is to be kept: gy where y = relu(batch norm + ...) let it through."""
    g = relu_grad(gy, y)
    return batch_norm_grad(g, x, hi, lo, invstd, gamma), g if keep else None


def grad_coefficients(
    rows: int, lo: Array, invstd: Array, gamma: Array, ggamma: Array, gbeta: Array
) -> tuple[Array, Array, Array]:
    """a, b, c with gx = a*gy + b*(x - hi) + c, for sums ggamma and gbeta in float64."""
    a = gamma * invstd
    b = -a * invstd * ggamma / rows
    c = -a * gbeta / rows - b * lo
    return a, b.astype(a.dtype), c.astype(a.dtype)


@kernel
def batch_norm_eval(
    x: Array, mean: Array, variance: Array, gamma: Array, beta: Array, eps: float, add: Array | None, relu: bool
) -> Array:
    """batch_norm_apply, for mean and variance (C,) that are given."""
    xp = array_module(x)
    return batch_norm_apply(x, mean, xp.zeros_like(mean), 1 / xp.sqrt(variance + eps), gamma, beta, add, relu)


@kernel
def batch_norm_eval_grad(
    gy: Array, x: Array | None, mean: Array, variance: Array, gamma: Array, eps: float
) -> NormGradients:
    """gx, ggamma (None without x) and gbeta of batch_norm_eval."""
    invstd = 1 / array_module(gy).sqrt(variance + eps)
    ggamma = None if x is None else sum_axes(gy * (x - mean), (0,)) * invstd
    return NormGradients(gy * (gamma * invstd), ggamma, sum_axes(gy, (0,)))


@kernel
def running_average_(running: Array, batch: Array, momentum: float, factor: float) -> None:
    """running = (1 - momentum) * running + momentum * factor * batch, in place; both (C,)."""
    running *= 1 - momentum
    running += momentum * factor * batch


def _group_mean(x: Array) -> Array:
    """The mean of x (N, S, G, D) over S and D, in float64 (N, 1, G, 1)."""
    n, s, g, d = x.shape
    wide = array_module(x).float64
    if s > 1:  # down S first: runs of G*D are contiguous
        x = x.reshape(n, s, g * d).sum(axis=1, dtype=wide).reshape(n, 1, g, d)
    return x.sum(axis=(1, 3), keepdims=True, dtype=wide) / (s * d or 1)


@kernel
def group_norm(x: Array, gamma: Array, beta: Array, eps: float) -> Normalised:
    """y = (x - mean) / sqrt(variance + eps) * gamma + beta for x (N, S, G, D) and gamma, beta (G, D).

    Mean and variance run over the S positions and D channels of each group of each example: (N, 1, G, 1).
    """
    with quiet():
        hi = _group_mean(x).astype(x.dtype)
        y = x - hi
        lo = _group_mean(y)
        _, lo, _, invstd = finish_statistics(hi, lo, _group_mean(y * y) - lo * lo, eps)
        y -= lo
        y *= invstd
        y *= gamma
        y += beta
    return Normalised(y, hi, lo, invstd)


@kernel
def group_norm_grad(gy: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array) -> NormGradients:
    """gx (N, S, G, D), ggamma and gbeta (G, D) of group_norm, whose hi, lo and invstd depend on x.

    With h = gy * gamma and xhat = (x - hi - lo) * invstd, means as in the forward pass:
    gx = invstd * (h - mean(h) - xhat * mean(h * xhat))
    """
    xhat = x - hi
    xhat -= lo
    xhat *= invstd
    ggamma, gbeta = sum_axes(gy * xhat, (0, 1)), sum_axes(gy, (0, 1))
    gx = gy * gamma
    xhat *= _group_mean(gx * xhat).astype(x.dtype)
    gx -= _group_mean(gx).astype(x.dtype)
    gx -= xhat
    gx *= invstd
    return NormGradients(gx, ggamma, gbeta)
