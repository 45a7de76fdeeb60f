"""Convolution by im2col, a block of output rows at a time on each thread: columns that stay in the cache.

The gradient of the input is a convolution, too, so that nothing is scattered: with stride 1, of gy by the turned
weights; with stride s, each of the s*s phases of gx (every s-th row and column) is one, by every s-th weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import get_num_threads, parts, share
from ..dispatch import Accepts, variant
from ..portable.conv import ConvGeometry, Epilogue, conv2d, conv2d_grad_input, conv2d_grad_weight
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
    windows,
)

COLUMN_BYTES = 4 << 20  # columns at a time, on each thread
FEW_WINDOWS = 256


class Block(NamedTuple):
    """Of these images, these rows of the output; shape (images, rows)."""

    images: slice
    rows: slice
    shape: tuple[int, int]


def cut(images: int, rows: int, most: int, workers: int) -> list[Block]:
    """Blocks of at most about `most` rows: whole images, or some rows of one; a worker's share at the most."""
    most = max(1, min(most, -(-images * rows // workers)))
    n, r = max(1, most // rows), min(rows, most)
    r = -(-rows // -(-rows // r))  # bands of equal height
    return [
        Block(slice(i, min(i + n, images)), slice(j, min(j + r, rows)), (min(n, images - i), min(r, rows - j)))
        for i in range(0, images, n)
        for j in range(0, rows, r)
    ]


def place(padded: Array, x: Array, images: slice, first: int, left: int) -> None:
    """Copy x's rows from `first` on, which may be above its top or end below it, into padded (n, R, W, C) at `left`.

    Around it `padded` gets zeros, but for the columns beside x, which must be zero already.
    """
    begin, end = max(0, -first), min(padded.shape[1], x.shape[1] - first)
    if begin:
        padded[:, :begin] = 0
    if end < padded.shape[1]:
        padded[:, max(end, 0) :] = 0
    if begin < end:
        skip = max(0, -left)
        width = min(x.shape[2] - skip, padded.shape[2] - max(left, 0))
        padded[:, begin:end, left + skip : left + skip + width] = x[
            images, first + begin : first + end, skip : skip + width
        ]


class Windows:
    """The windows of blocks of output rows of x (N, H, W, C), laid out as rows: im2col with one thread's memory."""

    def __init__(
        self,
        x: Array,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        pads: tuple[int, int],
        columns: int,
        most: tuple[int, int],
    ) -> None:
        self.x, self.kernel, self.stride, self.dilation, self.pads, self.columns = (
            x,
            kernel,
            stride,
            dilation,
            pads,
            columns,
        )
        c = x.shape[3]
        self.memory = empty((most[0] * most[1] * columns * math.prod(kernel) * c,), x.dtype)
        width = (columns - 1) * stride[1] + (kernel[1] - 1) * dilation[1] + 1
        self.inside = pads[1] == 0 and width <= x.shape[2]
        self.width, self.most = width, most
        self.padded: Array | None = None

    def height(self, rows: int) -> int:
        """Rows of x that so many rows of the output see."""
        return (rows - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1

    def __call__(self, block: Block) -> Array:
        """(n*r*OW, KH*KW*C), the windows of a block."""
        (n, r), (kh, kw), (sh, sw), (dh, dw) = block.shape, self.kernel, self.stride, self.dilation
        first, height, c = block.rows.start * sh - self.pads[0], self.height(r), self.x.shape[3]
        if self.inside and first >= 0 and first + height <= self.x.shape[1]:
            source = self.x[block.images, first : first + height, : self.width]
        else:
            if self.padded is None:
                self.padded = np.zeros((self.most[0], self.height(self.most[1]), self.width, c), self.x.dtype)
            source = self.padded[:n, :height]
            place(source, self.x, block.images, first, self.pads[1])
        image, row, column, channel = source.strides
        windows = np.lib.stride_tricks.as_strided(
            source, (n, r, self.columns, kh, kw, c), (image, row * sh, column * sw, row * dh, column * dw, channel)
        )
        cols = self.memory[: windows.size].reshape(windows.shape)
        np.copyto(cols, windows)
        return cols.reshape(-1, kh * kw * c)


def correlate(
    x: Array,
    w: Array,
    out: Array,
    pads: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    finish: Epilogue | None = None,
) -> None:
    """out (N, OH, OW, O), any view, = x (N, H, W, C) correlated with w (KH, KW, C, O).

    `pads` rows and columns of zeros lie before x, as many as are needed after it.
    """
    kh, kw, c, o = w.shape
    n, oh, ow, _ = out.shape
    w2 = w.reshape(kh * kw * c, o)
    # Where there are few windows, reading the weights is the work: each thread then reads its own channels' of them.
    channels = parts(o, 64) if n * oh * ow <= FEW_WINDOWS else [slice(0, o)]
    workers = get_num_threads() // len(channels)
    blocks = cut(n, oh, max(1, COLUMN_BYTES // (ow * kh * kw * c * x.itemsize)), workers)
    most = max(b.shape for b in blocks)
    direct = out.flags.c_contiguous

    def work(own: Iterator[tuple[Block, slice]]) -> None:
        windows = Windows(x, (kh, kw), stride, dilation, pads, ow, most)
        scratch = None if direct else empty((most[0] * most[1] * ow, o), x.dtype)
        for block, channel in own:
            cols, part = windows(block), out[block.images, block.rows]
            y2 = (part.reshape(-1, o) if scratch is None else scratch[: len(cols)])[:, channel]
            np.matmul(cols, w2[:, channel], out=y2)
            if scratch is not None:
                part[..., channel] = y2.reshape(*part.shape[:3], -1)
            if finish is not None:
                finish.apply(out, block.images, block.rows, channel)

    share(work, [(block, channel) for block in blocks for channel in channels])


def laid_out(w: Array) -> Array:
    """A C-contiguous copy of weights (KH, KW, C, O), by all threads: turning them reads against the grain."""
    copy = empty(w.shape, w.dtype)

    def work(own: Iterator[tuple[int, int, slice]]) -> None:
        for where in own:
            copy[where] = w[where]

    halves = parts(w.shape[2])
    share(work, [(i, j, half) for i in range(w.shape[0]) for j in range(w.shape[1]) for half in halves])
    return copy


def correlate_adjoint(gy: Array, w: Array, gx: Array, pads: tuple[int, int], stride: tuple[int, int]) -> None:
    """gx (N, H, W, C) of correlate(x, w, y, pads, stride), phase by phase.

    Row h of gx is seen by the places i of the window with (h + pad - i) a multiple of s, i0 and every s-th from there
    on; the rows h = a, a + s, ... have the same i0.
    """
    turned = w[::-1, ::-1].swapaxes(2, 3)
    for a in range(min(stride[0], gx.shape[1])):
        for b in range(min(stride[1], gx.shape[2])):
            firsts = [(phase + pad) % s for phase, pad, s in zip((a, b), pads, stride, strict=True)]
            ends = [-(-(k - i) // s) for k, i, s in zip(w.shape[:2], firsts, stride, strict=True)]
            phase = gx[:, a :: stride[0], b :: stride[1]]
            if min(ends) <= 0:
                phase[...] = 0
                continue
            last = [i + (count - 1) * s for i, count, s in zip(firsts, ends, stride, strict=True)]
            part = turned[w.shape[0] - 1 - last[0] :: stride[0], w.shape[1] - 1 - last[1] :: stride[1]]
            part = laid_out(part[: ends[0], : ends[1]])
            before = [
                count - 1 - (p + pad - i) // s
                for count, p, pad, i, s in zip(ends, (a, b), pads, firsts, stride, strict=True)
            ]
            correlate(gy, part, phase, (before[0], before[1]))


def correlate_weight(
    gy: Array,
    x: Array,
    shape: tuple[int, ...],
    pads: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Array:
    """gw (KH, KW, C, O) of correlate: each thread sums over its own blocks; the threads' sums are added in order."""
    (kh, kw, c, o), (n, oh, ow, _) = shape, gy.shape
    blocks = cut(n, oh, max(1, 2 * COLUMN_BYTES // (ow * kh * kw * c * x.itemsize)), get_num_threads())
    most = max(b.shape for b in blocks)
    runs = parts(len(blocks))
    sums = empty((len(runs), kh * kw * c, o), x.dtype)

    def work(own: Iterator[int]) -> None:
        windows = Windows(x, (kh, kw), stride, dilation, pads, ow, most)
        for run in own:
            for i, block in enumerate(blocks[runs[run]]):
                cols, gy2 = windows(block).T, gy[block.images, block.rows].reshape(-1, o)
                if i == 0:
                    np.matmul(cols, gy2, out=sums[run])
                else:
                    sums[run] += np.matmul(cols, gy2, out=empty(sums.shape[1:], x.dtype))

    share(work, range(len(runs)))
    for other in sums[1:]:
        sums[0] += other
    return sums[0].reshape(shape)


ON_CPU = Accepts("cpu")


def suits(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """one group of channels, and nothing empty"""
    return geometry.groups == 1 and not is_empty(x_shape, w_shape, geometry)


def suits_phases(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """one group of channels, no dilation, and nothing empty"""
    return geometry.dilation == (1, 1) and suits(x_shape, w_shape, geometry)


def cost(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> float:
    """The copies of the windows, the product, and reading the weights."""
    columns = windows(x_shape, w_shape, geometry) * math.prod(w_shape[:3])
    return columns / COPY + columns * w_shape[3] / PRODUCT + math.prod(w_shape) / STREAM + SHARED


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits), cost=conv2d_costs(cost))
def conv2d_im2col(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """im2col and product, block by block, each written to its place in y."""
    y = empty((len(x), *geometry.output_size(x.shape[1:3], w.shape[:2]), w.shape[3]), x.dtype)
    correlate(x, w, y, geometry.padding[::2], geometry.stride, geometry.dilation, Epilogue(bias, add, relu))
    return y


@variant(conv2d_grad_input, ON_CPU, suits=grad_input_asks(suits_phases), cost=grad_input_asks(cost))
def conv2d_grad_input_im2col(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """Convolutions of gy, one for each phase of the stride, instead of adding up columns."""
    gx = empty(shape, gy.dtype)
    correlate_adjoint(gy, w, gx, geometry.padding[::2], geometry.stride)
    if bias is not None:
        gx += bias
    return gx


@variant(conv2d_grad_weight, ON_CPU, suits=grad_weight_asks(suits), cost=grad_weight_asks(cost))
def conv2d_grad_weight_im2col(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """Columns are made again, block by block, and multiplied by gy."""
    return correlate_weight(gy, x, shape, geometry.padding[::2], geometry.stride, geometry.dilation)
