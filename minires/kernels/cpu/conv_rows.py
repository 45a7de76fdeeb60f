"""Convolution of stride 1 without im2col: in channels-last memory the windows' rows lie there as they are.

KW pixels side by side are KW*C numbers in a row. So every KW-th window of an image's row begins where the one before
ends: they are the rows of a matrix without any copy. With KW such matrices, one for each first place, and for each of
the window's KH rows, KH*KW products give all results. A shared margin of zeros between rows and between images makes
one long row of the whole block; results that straddle a margin are made and thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import get_num_threads, parts, share
from ..dispatch import Accepts, variant
from ..portable.conv import ConvGeometry, Epilogue, conv2d, conv2d_grad_input, conv2d_grad_weight
from .conv_im2col import Block, cut, laid_out
from .conv_questions import (
    COPY,
    PRODUCT,
    SHARED,
    STREAM,
    conv2d_asks,
    conv2d_costs,
    grad_input_asks,
    grad_weight_asks,
    is_empty,
)
from .tiles import pieces

ON_CPU = Accepts("cpu")
PIXELS = 4096  # at a time, on each thread
TERMS = 512  # of a sum: with few channels OpenBLAS adds up, one by one, as many as it gets


def suits(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """stride 1, no dilation, one group, pads below the window's size, and nothing empty"""
    (kh, kw), (top, bottom, left, right) = w_shape[:2], geometry.padding
    simple = geometry == ConvGeometry(padding=geometry.padding) and max(top, bottom) < kh and max(left, right) < kw
    return simple and not is_empty(x_shape, w_shape, geometry)


def cost(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> float:
    """Products over pixels and margins, narrower than im2col's; results that are added to KH times."""
    (images, h, w, _), (kh, kw, c, o) = x_shape, w_shape
    pixels = images * (h + kh // 2) * (w + kw // 2)
    return (
        1.15 * pixels * kh * kw * c * o / PRODUCT
        + pixels * (c + (2 * kh + 1) * o) / COPY
        + 2 * kh * kw * c * o / STREAM
        + SHARED
    )


class LongRow:
    """One thread's memory for a block of images as one row of pixels, with margins of zeros.

    Place (oh, ow) of image n is at (n*height + oh)*width + ow, for results as for the first pixels of their windows.
    """

    def __init__(
        self, size: tuple[int, ...], kernel: tuple[int, int], pads: tuple[int, int], most: int, x: Array
    ) -> None:
        (kh, kw), (_, h, w, c) = kernel, x.shape
        self.kernel, self.pads, self.x = kernel, pads, x
        after = size[0] - h - pads[0] + kh - 1, size[1] - w - pads[1] + kw - 1  # pads below and to the right
        self.height, self.width = h + max(pads[0], after[0]), w + max(pads[1], after[1])
        self.length = -(-most * self.height * self.width // kw) * kw
        self.pixels = np.zeros((self.length + kh * self.width + 2 * kw, c), x.dtype)

    def fill(self, images: slice) -> int:
        """Put images in; how many places, a multiple of KW, hold all of theirs."""
        (top, left), (_, h, w, c), n = self.pads, self.x.shape, images.stop - images.start
        start, places = top * self.width + left, n * self.height * self.width
        inside = self.pixels[start : start + places].reshape(n, self.height, self.width, c)[:, :h, :w]
        inside[...] = self.x[images]
        return -(-places // self.kernel[1]) * self.kernel[1]

    def windows(self, row: int, first: int, places: int) -> Array:
        """Row `row` of the windows at the places first, first + KW, ...: (places/KW, KW*C), a view."""
        kw, c = self.kernel[1], self.pixels.shape[1]
        start = row * self.width + first
        return self.pixels[start : start + places].reshape(-1, kw * c)


def correlate(x: Array, w: Array, size: tuple[int, ...], pads: tuple[int, int], finish: Epilogue) -> Array:
    """y (N, *size, O): x (N, H, W, C) correlated with w (KH, KW, C, O), `pads` rows and columns before x."""
    kh, kw, c, o = w.shape
    y = empty((len(x), *size, o), x.dtype)
    blocks = _blocks(len(x), x.shape)

    def work(own: Iterator[Block]) -> None:
        row = LongRow(size, (kh, kw), pads, blocks[0].shape[0], x)
        results, terms = empty((row.length, o), x.dtype), empty((row.length // kw, o), x.dtype)
        for block in own:
            places = row.fill(block.images)
            for first in range(kw):
                out = results[first:places:kw]
                np.matmul(row.windows(0, first, places), w[0].reshape(kw * c, o), out=out)
                for i in range(1, kh):
                    out += np.matmul(row.windows(i, first, places), w[i].reshape(kw * c, o), out=terms[: len(out)])
            whole = results[: block.shape[0] * row.height * row.width].reshape(-1, row.height, row.width, o)
            y[block.images] = whole[:, : size[0], : size[1]]
            finish.apply(y, block.images)

    share(work, blocks)
    return y


def _blocks(images: int, shape: tuple[int, ...]) -> list[Block]:
    """Whole images."""
    most = max(1, PIXELS // (shape[1] * shape[2]))
    return cut(images, 1, most, get_num_threads())


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits), cost=conv2d_costs(cost))
def conv2d_rows(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """KH*KW products of KW*C columns, no copy of the windows."""
    size = geometry.output_size(x.shape[1:3], w.shape[:2])
    return correlate(x, w, size, geometry.padding[::2], Epilogue(bias, add, relu))


@variant(conv2d_grad_input, ON_CPU, suits=grad_input_asks(suits), cost=grad_input_asks(cost))
def conv2d_grad_input_rows(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """The same on gy and the turned weights."""
    turned = laid_out(w[::-1, ::-1].swapaxes(2, 3))
    pads = w.shape[0] - 1 - geometry.padding[0], w.shape[1] - 1 - geometry.padding[2]
    return correlate(gy, turned, shape[1:3], pads, Epilogue(bias))


@variant(conv2d_grad_weight, ON_CPU, suits=grad_weight_asks(suits), cost=grad_weight_asks(cost))
def conv2d_grad_weight_rows(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The transposed products, with gy laid out like the results: 0 where one straddles a margin."""
    (kh, kw, c, o), size = shape, gy.shape[1:3]
    blocks = _blocks(len(x), x.shape)
    runs = parts(len(blocks))
    sums = empty((len(runs), kh, kw * c, o), x.dtype)
    sums[...] = 0

    def work(own: Iterator[int]) -> None:
        row = LongRow(size, (kh, kw), geometry.padding[::2], blocks[0].shape[0], x)
        results = np.zeros((row.length, o), gy.dtype)
        for run in own:
            for block in blocks[runs[run]]:
                places = row.fill(block.images)
                whole = results[: block.shape[0] * row.height * row.width].reshape(-1, row.height, row.width, o)
                whole[:, : size[0], : size[1]] = gy[block.images]
                results[len(whole) * row.height * row.width : places] = 0
                for first in range(kw):
                    for i in range(kh):
                        cols, gradients = row.windows(i, first, places), results[first:places:kw]
                        for few in pieces(len(cols), TERMS):
                            sums[run, i] += cols[few].T @ gradients[few]

    share(work, range(len(runs)))
    for other in sums[1:]:
        sums[0] += other
    return sums[0].reshape(shape)
