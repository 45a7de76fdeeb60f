"""Batch norm in blocks of rows, group norm in blocks of examples, that stay in the cache from first pass to last."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...device import Array
from ..dispatch import Accepts, quiet, registry, variant
from ..portable.norm import (
    BatchStatistics,
    Normalised,
    NormGradients,
    batch_norm_apply,
    batch_norm_grad,
    batch_norm_statistics,
    finish_statistics,
    grad_coefficients,
    group_norm,
    group_norm_grad,
)
from ..portable.reduce import column_sum

BLOCK_BYTES = 1 << 20  # smaller blocks pay Python's cost per call, larger ones leave the cache

ON_CPU = Accepts("cpu")


def _blocks(x: Array) -> Iterator[slice]:
    rows = max(1, BLOCK_BYTES // max(1, x[:1].nbytes))
    for start in range(0, len(x), rows):
        yield slice(start, start + rows)


@variant(batch_norm_statistics, ON_CPU)
def batch_norm_statistics_blocked(x: Array, eps: float) -> BatchStatistics:
    """x - hi and its square are made and summed block by block, and never stored whole."""
    rows = len(x) or 1  # an empty batch has mean 0
    with quiet():
        hi = (sum((column_sum(x[block]) for block in _blocks(x)), np.zeros(x.shape[1])) / rows).astype(x.dtype)
        total, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        for block in _blocks(x):
            d = x[block] - hi
            total += column_sum(d)
            d *= d
            square += column_sum(d)
        return finish_statistics(hi, total / rows, square / rows, eps)


@variant(batch_norm_apply, ON_CPU)
def batch_norm_apply_blocked(
    x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array, beta: Array, add: Array | None, relu: bool
) -> Array:
    """All steps on one block before the next."""
    a = invstd * gamma
    c = beta - lo * a
    y = np.empty_like(x)
    for block in _blocks(x):
        out = np.subtract(x[block], hi, out=y[block])
        out *= a
        out += c
        if add is not None:
            out += add[block]
        if relu:
            np.maximum(out, 0, out=out)
    return y


@variant(batch_norm_grad, ON_CPU)
def batch_norm_grad_blocked(gy: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array) -> NormGradients:
    """Two rounds over the blocks: the two sums, then gx."""
    gbeta, product = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for block in _blocks(x):
        d = x[block] - hi
        d *= gy[block]
        gbeta += column_sum(gy[block])
        product += column_sum(d)
    ggamma = (product - lo * gbeta) * invstd
    a, b, c = grad_coefficients(len(x) or 1, lo, invstd, gamma, ggamma, gbeta)
    gx = np.empty_like(x)
    for block in _blocks(x):
        out = np.subtract(x[block], hi, out=gx[block])
        out *= b
        out += gy[block] * a
        out += c
    return NormGradients(gx, ggamma.astype(x.dtype), gbeta.astype(x.dtype))


@variant(group_norm, ON_CPU)
def group_norm_blocked(x: Array, gamma: Array, beta: Array, eps: float) -> Normalised:
    """The portable kernel on a few examples at a time, which do not see each other."""
    n, _, g, _ = x.shape
    result = Normalised(np.empty_like(x), *(np.empty((n, 1, g, 1), x.dtype) for _ in range(3)))
    portable = registry["group_norm"].portable.function
    for block in _blocks(x):
        for whole, part in zip(result, portable(x[block], gamma, beta, eps), strict=True):
            whole[block] = part
    return result


@variant(group_norm_grad, ON_CPU)
def group_norm_grad_blocked(gy: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array) -> NormGradients:
    """The same; the sums over examples are continued in float64."""
    gx, ggamma, gbeta = np.empty_like(x), np.zeros(gamma.shape), np.zeros(gamma.shape)
    portable = registry["group_norm_grad"].portable.function
    for block in _blocks(x):
        part = portable(gy[block], x[block], hi[block], lo[block], invstd[block], gamma)
        gx[block] = part.x
        ggamma += part.weight
        gbeta += part.bias
    return NormGradients(gx, ggamma.astype(x.dtype), gbeta.astype(x.dtype))
