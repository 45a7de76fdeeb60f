"""Pooling: each result is gathered by one thread, in the portable kernels' order, so that it is theirs to the bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...device import Array, array_module
from ..dispatch import Accepts, variant
from ..portable.conv import ConvGeometry
from ..portable.pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_grad,
    avg_pool2d,
    avg_pool2d_grad,
    max_pool2d,
    max_pool2d_grad,
)
from .compiler import THREADS, blocks, launch, vector
from .conv import window
from .norm import ON_GPU


def _fits(shape: tuple[int, ...], output_size: tuple[int, ...]) -> bool:
    (n, h, w, c), (oh, ow) = shape, output_size
    sides = h, w, oh, ow
    return min(n, c, *sides) > 0 and max(sides) < 1 << 16 and n * c * max(h * w, oh * ow) < 1 << 31


def small_windows(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> bool:
    """images that are neither empty nor huge, windows of at most 256 places"""
    return math.prod(kernel_size) <= 256 and _fits(x.shape, geometry.output_size(x.shape[1:3], kernel_size))


def small_windows_grad(
    gy: Array, index: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry
) -> bool:
    """images that are neither empty nor huge, float32 gy and uint8 index"""
    return _fits(shape, gy.shape[1:3]) and gy.dtype == np.float32 and index.dtype == np.uint8


def counted(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry, count: Any) -> bool:
    """images that are neither empty nor huge, a count that is a number, (1, 1, 1) or (OH, OW, 1)"""
    output_size = geometry.output_size(x.shape[1:3], kernel_size)
    return _fits(x.shape, output_size) and _divides(count, output_size)


def counted_grad(
    gy: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry, count: Any
) -> bool:
    """images that are neither empty nor huge, a count that is a number, (1, 1, 1) or (OH, OW, 1)"""
    return _fits(shape, gy.shape[1:3]) and _divides(count, gy.shape[1:3])


def _divides(count: Any, output_size: tuple[int, ...]) -> bool:
    return isinstance(count, (int, float)) or count.shape in ((1, 1, 1), (*output_size, 1))


def moderate(x: Array, output_size: tuple[int, int]) -> bool:
    """images that are neither empty nor huge"""
    return _fits(x.shape, output_size)


def moderate_grad(gy: Array, shape: tuple[int, ...]) -> bool:
    """images that are neither empty nor huge"""
    return _fits(shape, gy.shape[1:3])


@variant(max_pool2d, ON_GPU, suits=small_windows)
def max_pool2d_cuda(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> tuple[Array, Array]:
    """A thread looks through a window once, and holds the largest and its place in registers."""
    xp, (n, h, w, c) = array_module(x), x.shape
    shape = n, *geometry.output_size((h, w), kernel_size), c
    y, index = xp.empty(shape, np.float32), xp.empty(shape, np.uint8)
    _launch("max_pool2d", vector(c, x), (x, y, index), window(x.shape, kernel_size, geometry))
    return y, index


@variant(max_pool2d_grad, Accepts("cuda", ("float32", "uint8")), suits=small_windows_grad)
def max_pool2d_grad_cuda(
    gy: Array, index: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry
) -> Array:
    """A pixel gathers from the windows that hold it: nothing is scattered."""
    gx = array_module(gy).empty(shape, np.float32)
    width = vector(shape[3], gy, index)
    _launch("max_pool2d_grad", width, (gy, index, gx), window(shape, kernel_size, geometry))
    return gx


@variant(avg_pool2d, ON_GPU, suits=counted)
def avg_pool2d_cuda(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry, count: Array) -> Array:
    """The sum stays in registers."""
    n, h, w, c = x.shape
    y = array_module(x).empty((n, *geometry.output_size((h, w), kernel_size), c), np.float32)
    _launch("avg_pool2d", vector(c, x), (x, *_divisor(count), y), window(x.shape, kernel_size, geometry))
    return y


@variant(avg_pool2d_grad, ON_GPU, suits=counted_grad)
def avg_pool2d_grad_cuda(
    gy: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry, count: Array
) -> Array:
    """A pixel gathers from the windows that hold it."""
    gx = array_module(gy).empty(shape, np.float32)
    width = vector(shape[3], gy)
    _launch("avg_pool2d_grad", width, (gy, *_divisor(count), gx), window(shape, kernel_size, geometry))
    return gx


@variant(adaptive_avg_pool2d, ON_GPU, suits=moderate)
def adaptive_avg_pool2d_cuda(x: Array, output_size: tuple[int, int]) -> Array:
    """One pass, without the sums down the rows in between."""
    n, h, w, c = x.shape
    y = array_module(x).empty((n, *output_size, c), np.float32)
    _launch("adaptive_avg_pool2d", vector(c, x), (x, y), h, w, c, *output_size)
    return y


@variant(adaptive_avg_pool2d_grad, ON_GPU, suits=moderate_grad)
def adaptive_avg_pool2d_grad_cuda(gy: Array, shape: tuple[int, ...]) -> Array:
    """The same over gy, each divided by its window's count as it is loaded."""
    gx = array_module(gy).empty(shape, np.float32)
    _launch("adaptive_avg_pool2d_grad", vector(shape[3], gy), (gy, gx), *shape[1:], *gy.shape[1:3])
    return gx


def _divisor(count: Any) -> tuple[Array | None, float, bool]:
    """pool.cu's count, number and each."""
    return (None, count, False) if isinstance(count, (int, float)) else (count, 1.0, count.size > 1)


def _launch(name: str, width: int, arguments: tuple[Any, ...], *sizes: Any) -> None:
    """A thread for every `width` channels of the result, the last of the arguments."""
    total = arguments[-1].size // width
    launch("pool", name, (blocks(total),), THREADS, *arguments, total, *sizes, width=width)
