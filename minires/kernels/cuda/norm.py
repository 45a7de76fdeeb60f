"""Batch norm: statistics in one pass over x, everything else in one more; sums in double, always in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...device import Array, array_module
from ..dispatch import Accepts, variant
from ..portable.norm import (
    BatchStatistics,
    NormGradients,
    batch_norm_apply,
    batch_norm_grad,
    batch_norm_relu_grad,
    batch_norm_statistics,
    running_average_,
)
from .compiler import COLUMNS, THREADS, blocks, launch, tiles, vector

ON_GPU = Accepts("cuda", ("float32",))


def filled(x: Array, *rest: Any, **settings: Any) -> bool:
    """arrays that are not empty; up to two million channels"""
    return x.size > 0 and x.shape[-1] <= COLUMNS


@variant(batch_norm_statistics, ON_GPU, suits=filled)
def batch_norm_statistics_cuda(x: Array, eps: float) -> BatchStatistics:
    """Sums of x - x[0] and of its squares in double: one pass, and as exact as two."""
    xp, (m, c) = array_module(x), x.shape
    width = vector(c, x)
    groups, rows, grid = tiles(m, c, width)
    part = xp.empty((grid[0], 2, c), np.float64)
    launch("norm", "batch_norm_sums", grid, THREADS, x, part, m, c, groups, rows, width=width)
    hi, lo, variance, invstd = (xp.empty(c, np.float32) for _ in range(4))
    launch(
        "norm", "batch_norm_finish", (blocks(c, 32),), THREADS,
        part, x, hi, lo, variance, invstd, grid[0], m, c, eps, width=width,
    )  # fmt: skip
    return BatchStatistics(hi, lo, variance, invstd)


@variant(batch_norm_apply, ON_GPU, suits=filled)
def batch_norm_apply_cuda(
    x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array, beta: Array, add: Array | None, relu: bool
) -> Array:
    """Normalise, scale, shift, add and ReLU in one pass."""
    (m, c), y = x.shape, array_module(x).empty(x.shape, x.dtype)
    width = vector(c, x, hi, add)
    groups, rows, grid = tiles(m, c, width)
    launch(
        "norm", "batch_norm_apply", grid, THREADS,
        x, hi, lo, invstd, gamma, beta, add, y, m, c, groups, rows, relu, width=width,
    )  # fmt: skip
    return y


@variant(batch_norm_grad, ON_GPU, suits=filled)
def batch_norm_grad_cuda(gy: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array) -> NormGradients:
    """One pass for the sums, one for gx."""
    return _gradients(gy, None, x, hi, lo, invstd, gamma, keep=False)[0]


@variant(batch_norm_relu_grad, ON_GPU, suits=filled)
def batch_norm_relu_grad_cuda(
    gy: Array, y: Array, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array, keep: bool
) -> tuple[NormGradients, Array | None]:
    """The same; the ReLU's mask is made anew in both passes, and g is written only if it is to be kept."""
    return _gradients(gy, y, x, hi, lo, invstd, gamma, keep)


@variant(running_average_, ON_GPU, suits=filled)
def running_average__cuda(running: Array, batch: Array, momentum: float, factor: float) -> None:
    """One launch instead of three."""
    c, keep, share = running.size, 1 - momentum, momentum * factor
    launch("norm", "running_average", (blocks(c),), THREADS, running, batch, keep, share, c, width=vector(c))


def _gradients(
    gy: Array, y: Array | None, x: Array, hi: Array, lo: Array, invstd: Array, gamma: Array, keep: bool
) -> tuple[NormGradients, Array | None]:
    xp, (m, c) = array_module(x), x.shape
    width = vector(c, gy, y, x, hi)
    groups, rows, grid = tiles(m, c, width)
    part = xp.empty((grid[0], 2, c), np.float64)
    launch("norm", "batch_norm_grad_sums", grid, THREADS, gy, y, x, hi, part, m, c, groups, rows, width=width)
    ggamma, gbeta, slope, rest = (xp.empty(c, np.float32) for _ in range(4))
    launch(
        "norm", "batch_norm_grad_finish", (blocks(c, 32),), THREADS,
        part, lo, invstd, gamma, ggamma, gbeta, slope, rest, grid[0], m, c, width=width,
    )  # fmt: skip
    gx = xp.empty(x.shape, x.dtype)
    g = xp.empty(x.shape, x.dtype) if keep else None
    launch(
        "norm", "batch_norm_grad", grid, THREADS,
        gy, y, x, hi, invstd, gamma, slope, rest, gx, g, m, c, groups, rows, width=width,
    )  # fmt: skip
    return NormGradients(gx, ggamma, gbeta), g
