"""Pooling in blocks of images, on threads."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ...device import Array
from ...memory import empty
from ..dispatch import Accepts, registry, variant
from ..portable.conv import ConvGeometry, pad, taps, unpad
from ..portable.pool import avg_pool2d, avg_pool2d_grad, first_places, index_type, max_pool2d, max_pool2d_grad
from .blocks import pieces, run, select

ON_CPU = Accepts("cpu")


@variant(max_pool2d, ON_CPU)
def max_pool2d_blocked(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> tuple[Array, Array]:
    """Places are compared as whole contiguous arrays, and the winner's number is moved to by arithmetic."""
    shape = (len(x), *geometry.output_size(x.shape[1:3], kernel_size), x.shape[3])
    y, index = empty(shape, x.dtype), empty(shape, index_type(kernel_size))
    first = first_places(y, kernel_size, geometry)

    def work(blocks: Iterator[slice]) -> None:
        for block in blocks:
            best, winner = y[block], index[block]
            windows = taps(pad(x[block], geometry, -math.inf), kernel_size, geometry)
            best[...] = next(windows)
            winner[...] = first
            for k, tap in enumerate(windows, start=1):
                value = tap.copy()
                better = (value > best) | (value != value)
                np.maximum(best, value, out=best)
                winner += (winner.dtype.type(k) - winner) * better

    run(work, pieces(len(x), x[:1].nbytes))
    return y, index


@variant(max_pool2d_grad, Accepts("cpu", ("float32", "float64", "uint8", "int32")))
def max_pool2d_grad_blocked(
    gy: Array, index: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry
) -> Array:
    """What a place has won is selected by masks of bits."""
    gx = empty(shape, gy.dtype)

    def work(blocks: Iterator[slice]) -> None:
        for block in blocks:
            part, winner = gy[block], index[block]
            won, inner = np.empty_like(part), gx[block]
            padded = pad(np.zeros(inner.shape, gx.dtype), geometry)
            for k, tap in enumerate(taps(padded, kernel_size, geometry)):
                select(part, winner != k, out=won)
                tap += won
            inner[...] = unpad(padded, inner.shape, geometry)

    run(work, pieces(len(gx), gx[:1].nbytes))
    return gx


@variant(avg_pool2d, ON_CPU)
def avg_pool2d_blocked(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry, count: Array) -> Array:
    """The portable kernel on a few images at a time."""
    y = empty((len(x), *geometry.output_size(x.shape[1:3], kernel_size), x.shape[3]), x.dtype)
    portable = registry["avg_pool2d"].portable.function

    def work(blocks: Iterator[slice]) -> None:
        for block in blocks:
            y[block] = portable(x[block], kernel_size, geometry, count)

    run(work, pieces(len(x), x[:1].nbytes))
    return y


@variant(avg_pool2d_grad, ON_CPU)
def avg_pool2d_grad_blocked(
    gy: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry, count: Array
) -> Array:
    """The same."""
    gx = empty(shape, gy.dtype)
    portable = registry["avg_pool2d_grad"].portable.function

    def work(blocks: Iterator[slice]) -> None:
        for block in blocks:
            inner = gx[block]
            inner[...] = portable(gy[block], inner.shape, kernel_size, geometry, count)

    run(work, pieces(len(gx), gx[:1].nbytes))
    return gx
