"""Sums over leading axes, on which CuPy would put a few blocks of threads alone."""

from __future__ import annotations

import math

import numpy as np

from ...device import Array, array_module
from ..dispatch import variant
from ..portable.reduce import kept_shape, sum_axes
from .compiler import COLUMNS, THREADS, blocks, launch, tiles, vector
from .norm import ON_GPU


def leading(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> bool:
    """the first axes of an array that is not empty, but not all of them; up to two million columns"""
    first = 0 < len(axes) < x.ndim and sorted(axes) == list(range(len(axes)))
    return first and 0 < x.size // (math.prod(x.shape[: len(axes)]) or 1) <= COLUMNS and x.size > 0


@variant(sum_axes, ON_GPU, suits=leading)
def sum_axes_cuda(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """Down the columns of x as a matrix: parts of the rows in many blocks, in double, then their sum."""
    xp, m = array_module(x), math.prod(x.shape[: len(axes)])
    c = x.size // m
    width = vector(c, x)
    groups, rows, grid = tiles(m, c, width)
    part = xp.empty((grid[0], c), np.float64)
    launch("reduce", "column_sums", grid, THREADS, x, part, m, c, groups, rows, width=width)
    total = xp.empty(kept_shape(x, axes) if keepdims else x.shape[len(axes) :], x.dtype)
    launch("reduce", "column_sums_finish", (blocks(c, 32),), THREADS, part, total, grid[0], c, width=width)
    return total
