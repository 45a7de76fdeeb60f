"""Convolution of a few images by weights that are fixed: inference, where Python and the weights cost most.

The variants are im2col and Winograd as elsewhere, but all that depends on shapes alone is planned once (plans.py), and
nothing is shared among Python's threads, whose meetings cost as much as a layer. Winograd's products are so small that
one thread does them; im2col's large one is left to BLAS's own threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...device import Array
from ...memory import copy, empty
from ..dispatch import Accepts, variant
from ..kept import kept
from ..portable.conv import ConvGeometry, conv2d
from .conv_im2col import suits as suits_any
from .conv_questions import CALLS, COPY, PRODUCT, STREAM, conv2d_asks, conv2d_costs, is_small, windows
from .conv_winograd import suits as suits_3x3
from .plans import Run, Space, planned
from .tiles import F2, F4, Minimal, mixing, multiplying, put, run_all, spaced, transformed

FEW = 48  # windows: with no more, BLAS packs the weights sooner as the first factor, turned
ON_CPU = Accepts("cpu")
SMALL_PRODUCT = 70e9  # multiplications a second by one thread, in products that BLAS does as they lie
CACHED = 1 << 17  # numbers
GATHER = 3.5e9  # numbers copied a second, by one thread, into windows, tiles and results


class Padded:
    """Memory for x (N, H, W, C) with zeros around it, `top` rows before it and `left` columns."""

    def __init__(
        self, space: Space, shape: tuple[int, ...], x_shape: tuple[int, ...], top: int, left: int, dtype: Any
    ) -> None:
        _, h, w, _ = x_shape
        self.all = space.array(shape, dtype)
        below, inside = self.all[:, top:], self.all[:, top : top + h]
        zeros = self.all[:, :top], below[:, h:], inside[:, :, :left], inside[:, :, left + w :]
        self.zeros = [zero for zero in zeros if zero.size]
        self.inside = inside[:, :, left : left + w]
        self.height, self.width = self.inside.shape[1:3]  # less than x's where no window sees its last rows or columns

    def fill(self, x: Array) -> None:
        for zero in self.zeros:
            zero.fill(0)
        np.copyto(self.inside, x[:, : self.height, : self.width])


def finish(y: Array, add: Array | None, relu: bool, zeros: Any) -> Array:
    """y + add, then ReLU, in place."""
    if add is not None:
        np.add(y, add, out=y)
    if relu:
        np.maximum(y, zeros, out=y)
    return y


def suits_im2col(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """at most 4 images, little to multiply for each; one group of channels, and nothing empty"""
    return suits_any(x_shape, w_shape, geometry) and is_small(x_shape, w_shape, geometry)


def suits_winograd(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """at most 4 images, little to multiply for each; 3x3 weights, stride 1, no dilation, one group, pads up to 2"""
    return suits_3x3(x_shape, w_shape, geometry) and is_small(x_shape, w_shape, geometry)


def plan_im2col(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    geometry: ConvGeometry,
    turned: Any,
    dtype: Any,
    space: Space,
) -> Run:
    """The windows as rows of a matrix, and one product: cols2 @ w2, or turned (O, KH*KW*C) @ cols2^T."""
    (n, *size, _), (kh, kw, c, o), (sh, sw), (dh, dw) = x_shape, w_shape, geometry.stride, geometry.dilation
    (oh, ow), (high, wide) = geometry.output_size(tuple(size), (kh, kw)), geometry.extent((kh, kw))
    padded = Padded(space, (n, (oh - 1) * sh + high, (ow - 1) * sw + wide, c), x_shape, *geometry.padding[::2], dtype)
    image, row, column, channel = padded.all.strides
    cols = space.array((n, oh, ow, kh, kw, c), dtype)
    strides = image, row * sh, column * sw, row * dh, column * dw, channel
    seen = np.ndarray(cols.shape, dtype, padded.all, 0, strides)
    cols2 = cols.reshape(n * oh * ow, -1)
    results, zeros = space.array((o, len(cols2)), dtype), space.zeros((n, oh, ow, o), dtype)
    pixels = cols.reshape(n, oh, ow, c) if (kh, kw) == (1, 1) and not any(geometry.padding) else None

    def run(x: Array, w: Array, bias: Array | None, add: Array | None, relu: bool) -> Array:
        if pixels is None:
            padded.fill(x)
            np.copyto(cols, seen)
        else:
            np.copyto(pixels, x[:, ::sh, ::sw])
        y = empty((n, oh, ow, o), dtype)
        if turned is None:
            np.matmul(cols2, w.reshape(-1, o), out=y.reshape(-1, o))
        else:
            np.copyto(y.reshape(-1, o), np.matmul(turned, cols2.T, out=results).T)
        if bias is not None:
            np.add(y, bias, out=y)
        return finish(y, add, relu, zeros)

    return run


def cost_im2col(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> float:
    """The copies of the windows, the product, and reading the weights."""
    columns, weights = windows(x_shape, w_shape, geometry) * math.prod(w_shape[:3]), math.prod(w_shape)
    return CALLS / 2 + columns / GATHER + columns * w_shape[3] / PRODUCT + weights / COPY


def cost_winograd(f: Minimal, x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> float:
    """Likewise, and all on one thread; what weights there are beyond a cache's worth are waited for."""
    size, (c, o), places = geometry.output_size(x_shape[1:3], (3, 3)), w_shape[2:], f.a**2
    tiles = x_shape[0] * -(-size[0] // f.m) * -(-size[1] // f.m)
    products = places * (c * o + c * places + o * f.m**2)
    copies = places * c + f.m**2 * o
    late = max(0, places * c * o - CACHED) / STREAM
    return CALLS / 2 + tiles * (products / SMALL_PRODUCT + copies / GATHER) + late


def plan_winograd(
    f: Minimal, x_shape: tuple[int, ...], u: Array, size: tuple[int, int], pads: tuple[int, int], space: Space
) -> Run:
    """All tiles at once: y = A^T (u * (B^T d B)) A for the transformed weights u (a*a, J, C, O/J)."""
    (n, _, _, c), (_, j, _, wide), m, a = x_shape, u.shape, f.m, f.a
    rows, columns, o = -(-size[0] // m), -(-size[1] // m), j * wide
    data, _, result = f.matrices(u.dtype)
    padded = Padded(space, (n, rows * m + 2, columns * m + 2, c), x_shape, *pads, u.dtype)
    image, row, column, channel = padded.all.strides
    shape = n, rows, columns
    first, second, third = (space.spaced(a * a, math.prod(shape) * max(c, o), u.dtype) for _ in range(3))
    d = spaced((a, a, *shape, c), 2, u.dtype, first)
    tiles = np.ndarray(d.shape, u.dtype, padded.all, 0, (row, column, image, m * row, m * column, channel))
    v = spaced((a * a, math.prod(shape), c), 1, u.dtype, second)
    sums, terms = (spaced((a * a, v.shape[1], o), 1, u.dtype, memory) for memory in (first, third))
    tile = spaced((m, m, *shape, o), 2, u.dtype, second)
    forth = mixing(data, d.reshape(a * a, -1), v.reshape(a * a, -1))
    products = multiplying(v, u, sums, terms)
    back = mixing(result, sums.reshape(a * a, -1), tile.reshape(m * m, -1))
    everywhere, zeros = sums[f.ones], space.zeros((n, *size, o), u.dtype)

    def run(x: Array, w: Array, bias: Array | None, add: Array | None, relu: bool) -> Array:
        padded.fill(x)
        np.copyto(d, tiles)
        run_all(forth)
        run_all(products)
        if bias is not None:
            np.add(everywhere, bias, out=everywhere)
        run_all(back)
        y = empty((n, *size, o), u.dtype)
        put(tile, y)
        return finish(y, add, relu, zeros)

    return run


def _winograd(f: Minimal, x: Array, w: Array, geometry: ConvGeometry, *epilogue: Any) -> Array:
    def make() -> Callable[[Space], Run]:
        u, size = kept(w, (f.m, False), lambda: transformed(f, w, False)), geometry.output_size(x.shape[1:3], (3, 3))
        return partial(plan_winograd, f, x.shape, u, size, geometry.padding[::2])

    return planned(w, (f.m, x.shape, geometry.padding), make)(x, w, *epilogue)


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits_im2col), cost=conv2d_costs(cost_im2col, small=True))
def conv2d_small_im2col(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """im2col, planned, and one product."""

    def make() -> Callable[[Space], Run]:
        few = windows(x.shape, w.shape, geometry) <= FEW
        turned = kept(w, "turned", lambda: copy(w.reshape(-1, w.shape[3]).T)) if few else None
        return partial(plan_im2col, x.shape, w.shape, geometry, turned, w.dtype)

    return planned(w, (x.shape, geometry), make)(x, w, bias, add, relu)


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits_winograd), cost=conv2d_costs(partial(cost_winograd, F2), small=True))
def conv2d_small_winograd2(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """F(2x2, 3x3), planned."""
    return _winograd(F2, x, w, geometry, bias, add, relu)


@variant(
    conv2d,
    ON_CPU,
    suits=conv2d_asks(suits_winograd),
    cost=conv2d_costs(partial(cost_winograd, F4), small=True),
    precision="fast",
)
def conv2d_small_winograd4(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """F(4x4, 3x3), planned."""
    return _winograd(F4, x, w, geometry, bias, add, relu)
