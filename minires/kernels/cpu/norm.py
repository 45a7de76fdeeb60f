"""Batch norm in blocks of rows, group norm in blocks of examples, on threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...device import Array
from ...memory import empty_like
from ..dispatch import Accepts, quiet, registry, variant
from ..portable.norm import (
    BatchStatistics,
    Normalised,
    NormGradients,
    batch_norm_apply,
    batch_norm_eval,
    batch_norm_grad,
    batch_norm_relu_grad,
    batch_norm_statistics,
    finish_statistics,
    grad_coefficients,
    group_norm,
    group_norm_grad,
)
from .activation import let_through
from .blocks import Rows, pieces, run

ON_CPU = Accepts("cpu")


@variant(batch_norm_statistics, ON_CPU)
def batch_norm_statistics_blocked(x: Array, eps: float) -> BatchStatistics:
    """One pass over memory, which sums x - near and its square, `near` being the mean of a sample of rows.

    Variance = mean((x - near)^2) - (mean - near)^2 loses digits only where `near` is far from the mean, counted in
    standard deviations (Chan, Golub and LeVeque, 1983, section 3). Where the sample was that unlucky, the mean that the
    pass has found is near enough for a second one.
    """
    rows, count = Rows(x), len(x) or 1  # an empty batch has mean 0
    with quiet():
        sample = x[:: -(-count // rows.side)].astype(np.float64)
        near = (sample.sum(axis=0) / (len(sample) or 1)).astype(x.dtype)
        offset, square = _moments(rows, x, near) / count
        if (offset * offset > 4 * (square - offset * offset)).any():
            near = (near + offset).astype(x.dtype)
            offset, square = _moments(rows, x, near) / count
        hi = (near + offset).astype(x.dtype)
        return finish_statistics(hi, near.astype(np.float64) - hi + offset, square - offset * offset, eps)


def _moments(rows: Rows, x: Array, near: Array) -> Array:
    """The sums of x - near and of its square, (2, C) in float64."""
    (shift,), blocks = rows.wide(near), rows.cut(x)
    sums = np.zeros((len(blocks), 2, x.shape[1]))

    def work(blocks: Iterator[tuple[Array, Array]]) -> None:
        scratch = rows.scratch()
        for part, both in blocks:
            height, width = part.shape
            down = np.empty((2, width), x.dtype)
            d = np.subtract(part, shift[:width], out=scratch[:height, :width])
            np.add.reduce(d, axis=0, out=down[0])
            d *= d
            np.add.reduce(d, axis=0, out=down[1])
            both[...] = rows.fold(down)

    run(work, zip(blocks, sums, strict=True))
    return sums.sum(axis=0)


@variant(batch_norm_apply, ON_CPU)
def batch_norm_apply_blocked(
    x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array, beta: Array, add: Array | None, relu: bool
) -> Array:
    """All steps on one block before the next."""
    a = invstd * gamma
    return _normalised(x, hi, a, beta - lo * a, add, relu)


@variant(batch_norm_eval, ON_CPU)
def batch_norm_eval_blocked(
    x: Array, mean: Array, variance: Array, gamma: Array, beta: Array, eps: float, add: Array | None, relu: bool
) -> Array:
    """The same."""
    with quiet():
        return _normalised(x, mean, gamma / np.sqrt(variance + eps), beta, add, relu)


def _normalised(x: Array, mean: Array, a: Array, c: Array, add: Array | None, relu: bool) -> Array:
    """(x - mean) * a + c, then + add, then ReLU."""
    rows, y = Rows(x), empty_like(x)
    vectors, blocks = rows.wide(mean, a, c, 0), rows.cut(x)

    def work(blocks: Iterator[tuple[Array, Array, Array | None]]) -> None:
        for part, out, z in blocks:
            mean, a, c, zeros = vectors[:, : part.shape[1]]
            np.subtract(part, mean, out=out)
            out *= a
            out += c
            if z is not None:
                out += z
            if relu:
                np.maximum(out, zeros, out=out)  # with a single zero NumPy is half as fast

    run(work, zip(blocks, rows.cut(y), [None] * len(blocks) if add is None else rows.cut(add), strict=True))
    return y


@variant(batch_norm_grad, ON_CPU)
def batch_norm_grad_blocked(gy: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array) -> NormGradients:
    """Two rounds over the blocks: the two sums, then gx."""
    return _gradients(gy, None, gy, empty_like(x), x, hi, lo, invstd, gamma)


@variant(batch_norm_relu_grad, ON_CPU)
def batch_norm_relu_grad_blocked(
    gy: Array, y: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array, keep: bool
) -> tuple[NormGradients, Array | None]:
    """The first round makes g on its way: where nobody keeps it, in the memory that the second one fills with gx."""
    gx = empty_like(x)
    g = empty_like(x) if keep else gx
    return _gradients(gy, y, g, gx, x, hi, lo, invstd, gamma), g if keep else None


def _gradients(
    gy: Array, y: Array | None, g: Array, gx: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array
) -> NormGradients:
    """Batch norm's gradients from g, which may lie in gx. With y, g is made first: ReLU's gradient from gy."""
    rows = Rows(x)
    parts, parts_g = rows.cut(x), rows.cut(g)
    masks = [None] * len(parts) if y is None else list(zip(rows.cut(gy), rows.cut(y), strict=True))
    sums = np.zeros((len(parts), 2, x.shape[1]))
    (shift,) = rows.wide(hi)

    def add_up(blocks: Iterator[tuple[Array, Array, tuple[Array, Array] | None, Array]]) -> None:
        scratch = rows.scratch()
        for part, g, mask, both in blocks:
            height, width = part.shape
            if mask is not None:
                let_through(*mask, out=g)
            down = np.empty((2, width), x.dtype)
            np.add.reduce(g, axis=0, out=down[0])
            d = np.subtract(part, shift[:width], out=scratch[:height, :width])
            d *= g
            np.add.reduce(d, axis=0, out=down[1])
            both[...] = rows.fold(down)

    run(add_up, zip(parts, parts_g, masks, sums, strict=True))
    with quiet():
        gbeta, product = sums.sum(axis=0)
        ggamma = (product - lo * gbeta) * invstd
        vectors = rows.wide(hi, *grad_coefficients(len(x) or 1, lo, invstd, gamma, ggamma, gbeta))

    def put_together(blocks: Iterator[tuple[Array, Array, Array]]) -> None:
        scratch = rows.scratch()
        for part, g, out in blocks:
            height, width = part.shape
            hi, a, b, c = vectors[:, :width]
            d = np.subtract(part, hi, out=scratch[:height, :width])
            d *= b
            d += c
            np.multiply(g, a, out=out)
            out += d

    run(put_together, zip(parts, parts_g, rows.cut(gx), strict=True))
    return NormGradients(gx, ggamma.astype(x.dtype), gbeta.astype(x.dtype))


@variant(group_norm, ON_CPU)
def group_norm_blocked(x: Array, gamma: Array, beta: Array, eps: float) -> Normalised:
    """The portable kernel on a few examples at a time, which do not see each other."""
    n, _, g, _ = x.shape
    result = Normalised(empty_like(x), *(np.empty((n, 1, g, 1), x.dtype) for _ in range(3)))
    portable = registry["group_norm"].portable.function

    def work(blocks: Iterator[slice]) -> None:
        for block in blocks:
            for whole, part in zip(result, portable(x[block], gamma, beta, eps), strict=True):
                whole[block] = part

    run(work, pieces(n, x[:1].nbytes))
    return result


@variant(group_norm_grad, ON_CPU)
def group_norm_grad_blocked(gy: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array) -> NormGradients:
    """The same; the sums over examples are continued in float64, in the order of the blocks."""
    gx, blocks = empty_like(x), pieces(len(x), x[:1].nbytes)
    sums = np.zeros((len(blocks), 2, *gamma.shape))
    portable = registry["group_norm_grad"].portable.function

    def work(blocks: Iterator[tuple[int, slice]]) -> None:
        for i, block in blocks:
            part = portable(gy[block], x[block], hi[block], lo[block], invstd[block], gamma)
            gx[block] = part.x
            sums[i] = part.weight, part.bias

    run(work, enumerate(blocks))
    ggamma, gbeta = sums.sum(axis=0).astype(x.dtype)
    return NormGradients(gx, ggamma, gbeta)
