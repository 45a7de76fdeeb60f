"""1x1 convolution without im2col: the pixels that it sees are the rows of a matrix."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import get_num_threads, parts, share
from ..dispatch import Accepts, variant
from ..portable.conv import ConvGeometry, Epilogue, conv2d, conv2d_grad_input, conv2d_grad_weight
from .conv_questions import (
    ALONE,
    CALLS,
    COPY,
    PRODUCT,
    conv2d_asks,
    conv2d_costs,
    grad_input_asks,
    grad_weight_asks,
    is_empty,
    windows,
)

ON_CPU = Accepts("cpu")
ROWS = 2048  # of a product, on each thread


def suits(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """1x1 weights without pads, one group, and nothing empty"""
    simple = w_shape[:2] == (1, 1) and not any(geometry.padding) and geometry.groups == 1
    return simple and not is_empty(x_shape, w_shape, geometry)


def cost(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> float:
    """The product, and with a stride the copy."""
    seen = windows(x_shape, w_shape, geometry) * w_shape[2]
    copy = seen / COPY if geometry.stride != (1, 1) else 0
    if is_little(seen, w_shape[3]):
        return CALLS + 2 * seen * w_shape[3] / PRODUCT + copy
    return seen * w_shape[3] / PRODUCT + copy / 2


def is_little(size: int, columns: int) -> bool:
    """Whether one thread multiplies a matrix of `size` numbers by one of so many columns sooner than several."""
    return size * columns < ALONE


def seen_pixels(x: Array, stride: tuple[int, int]) -> Array:
    """The pixels of x (N, H, W, C) that a 1x1 window meets, as rows: a view with stride 1."""
    return x.reshape(-1, x.shape[3]) if stride == (1, 1) else x[:, :: stride[0], :: stride[1]].reshape(-1, x.shape[3])


def multiply(a: Array, b: Array, out: Array, finish: Callable[[slice], None] | None = None) -> None:
    """out = a @ b by all threads, some rows at a time, each of which `finish` gets to know of."""
    step = max(1, min(ROWS, -(-len(a) // get_num_threads())))
    most = 1 if is_little(a.size, b.shape[1]) else None

    def work(starts: Iterator[int]) -> None:
        for start in starts:
            rows = slice(start, start + step)
            np.matmul(a[rows], b, out=out[rows])
            if finish is not None:
                finish(rows)

    share(work, range(0, len(a), step), most)


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits), cost=conv2d_costs(cost))
def conv2d_pointwise(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """y2 = x2 @ w2 on the pixels themselves."""
    o = w.shape[3]
    y = empty((len(x), *geometry.output_size(x.shape[1:3], (1, 1)), o), x.dtype)
    pixels = y.reshape(-1, 1, 1, o)
    finish = Epilogue(bias, None if add is None else add.reshape(pixels.shape), relu)
    multiply(seen_pixels(x, geometry.stride), w[0, 0], y.reshape(-1, o), functools.partial(finish.apply, pixels))
    return y


@variant(conv2d_grad_input, ON_CPU, suits=grad_input_asks(suits), cost=grad_input_asks(cost))
def conv2d_grad_input_pointwise(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """gx2 = gy2 @ w2^T; pixels that a stride steps over get 0."""
    gx = empty(shape, gy.dtype)
    seen = gx if geometry.stride == (1, 1) else empty((*gy.shape[:3], shape[3]), gy.dtype)
    multiply(gy.reshape(-1, gy.shape[3]), w[0, 0].T, seen.reshape(-1, shape[3]))
    if seen is not gx:
        gx[...] = 0
        gx[:, :: geometry.stride[0], :: geometry.stride[1]] = seen
    if bias is not None:
        gx += bias
    return gx


@variant(conv2d_grad_weight, ON_CPU, suits=grad_weight_asks(suits), cost=grad_weight_asks(cost))
def conv2d_grad_weight_pointwise(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """gw2 = x2^T @ gy2, each thread on its own pixels; the threads' sums are added in order."""
    x2, gy2 = seen_pixels(x, geometry.stride), gy.reshape(-1, shape[3])
    runs = parts(len(x2))
    sums = empty((len(runs), *shape[2:]), gy.dtype)

    def work(own: Iterator[int]) -> None:
        for i in own:
            np.matmul(x2[runs[i]].T, gy2[runs[i]], out=sums[i])

    share(work, range(len(runs)))
    for other in sums[1:]:
        sums[0] += other
    return sums[0].reshape(shape)
