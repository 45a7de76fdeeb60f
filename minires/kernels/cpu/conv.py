"""Convolution on a few images at a time, whatever its geometry: the portable kernel on blocks whose columns stay small.

Faster variants for most geometries stand in conv_im2col.py, conv_winograd.py, ...; groups and depthwise run here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import share
from ..dispatch import Accepts, variant
from ..portable.conv import (
    ConvGeometry,
    Epilogue,
    by_group,
    col2im,
    conv2d,
    conv2d_grad_input,
    conv2d_grad_weight,
    depthwise,
    depthwise_grad_input,
    depthwise_grad_weight,
    im2col,
    is_depthwise,
    side_by_side,
)
from .conv_questions import (
    ALONE,
    COPY,
    PRODUCT,
    STREAM,
    conv2d_costs,
    grad_input_asks,
    grad_weight_asks,
    windows,
)

# The columns of a whole batch are up to KH*KW times as large as its images: 300 MB for one layer of ResNet-18 at
# batch 128. (Depthwise, the same blocks have images of about 1 MB, which stay in the cache from one place of the window
# to the next.)
COLUMN_BYTES = 8 << 20

ON_CPU = Accepts("cpu", contiguous=False)


def blocks(images: int, bytes_per_image: int) -> list[slice]:
    """Slices that cut a batch into blocks of images whose columns fill about COLUMN_BYTES."""
    step = max(1, COLUMN_BYTES // max(1, bytes_per_image))
    return [slice(start, start + step) for start in range(0, images, step)]


def _column_bytes(w_shape: tuple[int, ...], pixels: int, geometry: ConvGeometry, x: Array) -> int:
    kh, kw, c, _ = w_shape
    return pixels * kh * kw * c * geometry.groups * x.itemsize


def cost(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> float:
    """For one block, whose product is left to BLAS: im2col's, without threads. More are for want of a better."""
    columns = windows(x_shape, w_shape, geometry) * math.prod(w_shape[:3]) * geometry.groups
    products = columns * w_shape[3]
    if geometry.groups > 1 or 4 * columns > COLUMN_BYTES or not ALONE < products < 2 * ALONE:
        return math.inf
    return 2 * columns / COPY + 1.2 * products / PRODUCT + math.prod(w_shape) / STREAM


def run(work: Callable[[Iterator[Any]], None], items: Sequence[Any]) -> None:
    """`share` of several blocks; one leaves its product to BLAS's threads, which need not wait for the interpreter."""
    if len(items) == 1:
        work(iter(items))
    else:
        share(work, items)


@variant(conv2d, ON_CPU, cost=conv2d_costs(cost))
def conv2d_blocked(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """im2col and product, block by block, each written to its place in y."""
    kh, kw, c, o = w.shape
    oh, ow = geometry.output_size(x.shape[1:3], (kh, kw))
    y = empty((len(x), oh, ow, o), x.dtype)
    w2, finish = by_group(w.reshape(kh * kw * c, o), geometry.groups), Epilogue(bias, add, relu)

    def work(own: Iterator[slice]) -> None:
        for block in own:
            part = y[block]
            if is_depthwise(w.shape, geometry):
                part[...] = depthwise(x[block], w, geometry)
            else:
                y2 = by_group(part.reshape(-1, o), geometry.groups)
                np.matmul(im2col(x[block], (kh, kw), geometry), w2, out=y2)
            finish.apply(y, block)

    run(work, blocks(len(x), _column_bytes(w.shape, oh * ow, geometry, x)))
    return y


@variant(conv2d_grad_input, ON_CPU, cost=grad_input_asks(cost))
def conv2d_grad_input_blocked(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """Product and col2im, block by block."""
    kh, kw, c, o = w.shape
    gx = empty(shape, gy.dtype)
    w2t = by_group(w.reshape(kh * kw * c, o), geometry.groups).swapaxes(-1, -2)

    def work(own: Iterator[slice]) -> None:
        for block in own:
            part = gx[block]
            if is_depthwise(w.shape, geometry):
                part[...] = depthwise_grad_input(gy[block], w, part.shape, geometry)
            else:
                gy2 = by_group(gy[block].reshape(-1, o), geometry.groups)
                part[...] = col2im(gy2 @ w2t, part.shape, (kh, kw), geometry)
            if bias is not None:
                part += bias

    run(work, blocks(len(gy), _column_bytes(w.shape, gy.shape[1] * gy.shape[2], geometry, gy)))
    return gx


@variant(conv2d_grad_weight, ON_CPU, cost=grad_weight_asks(cost))
def conv2d_grad_weight_blocked(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The blocks' products are kept, and summed in the order of the images."""
    kh, kw, c, o = shape
    pieces = blocks(len(x), _column_bytes(shape, gy.shape[1] * gy.shape[2], geometry, x))
    sums = np.zeros((len(pieces), kh * kw * c, o), gy.dtype)

    def work(own: Iterator[int]) -> None:
        for i in own:
            part, gy_part = x[pieces[i]], gy[pieces[i]]
            if is_depthwise(shape, geometry):
                sums[i] = depthwise_grad_weight(gy_part, part, shape, geometry).reshape(sums[i].shape)
            else:
                gy2 = by_group(gy_part.reshape(-1, o), geometry.groups)
                sums[i] = side_by_side(im2col(part, (kh, kw), geometry).swapaxes(-1, -2) @ gy2, geometry.groups)

    run(work, range(len(pieces)))
    return sums.sum(axis=0).reshape(shape)
