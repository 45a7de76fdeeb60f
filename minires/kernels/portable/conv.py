"""Convolution as one matrix product: im2col lays every window out as a row, col2im is its adjoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ...device import Array, array_module
from ..dispatch import kernel
from .reduce import sum_axes

ALL = slice(None)


@dataclass(frozen=True)
class ConvGeometry:
    """How a window moves over an image, and what it sees of it.

    Steps (rows, columns); places around the image (top, bottom, left, right); steps between the window's own places
    (rows, columns); groups of channels, each convolved by itself.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def extent(self, kernel: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns from a window's first place to its last: (K - 1)*D + 1."""
        return (kernel[0] - 1) * self.dilation[0] + 1, (kernel[1] - 1) * self.dilation[1] + 1

    def output_size(self, size: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, int]:
        """Output rows and columns for an input of `size`: floor((H + pads - (KH - 1)*D - 1) / S) + 1."""
        top, bottom, left, right = self.padding
        high, wide = self.extent(kernel)
        rows = (size[0] + top + bottom - high) // self.stride[0] + 1
        columns = (size[1] + left + right - wide) // self.stride[1] + 1
        return rows, columns


def pad(x: Array, geometry: ConvGeometry, value: float = 0) -> Array:
    """x (N, H, W, C) with `value` around each image; x itself where there is nothing to add."""
    if not any(geometry.padding):
        return x
    top, bottom, left, right = geometry.padding
    n, h, w, c = x.shape
    padded = array_module(x).full((n, h + top + bottom, w + left + right, c), value, dtype=x.dtype)
    padded[:, top : top + h, left : left + w] = x
    return padded


def unpad(padded: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The inner (N, H, W, C) part of a padded array: the adjoint of `pad`."""
    if not any(geometry.padding):
        return padded
    top, _, left, _ = geometry.padding
    return array_module(padded).ascontiguousarray(padded[:, top : top + shape[1], left : left + shape[2]])


def taps(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> Iterator[Array]:
    """For each place (i, j) in the window, row by row: the view (N, OH, OW, ...) of padded x it sees as it moves."""
    (sh, sw), (dh, dw), (kh, kw) = geometry.stride, geometry.dilation, kernel_size
    high, wide = geometry.extent(kernel_size)
    oh, ow = (x.shape[1] - high) // sh + 1, (x.shape[2] - wide) // sw + 1
    for i in range(0, kh * dh, dh):
        for j in range(0, kw * dw, dw):
            yield x[:, i : i + sh * oh : sh, j : j + sw * ow : sw]


def by_group(rows: Array, groups: int) -> Array:
    """Rows (M, G*K) as a matrix for each group, (G, M, K), a view; for one group as they are."""
    return rows if groups == 1 else rows.reshape(len(rows), groups, rows.shape[1] // groups).swapaxes(0, 1)


def side_by_side(matrices: Array, groups: int) -> Array:
    """The inverse of `by_group`."""
    if groups == 1:
        return matrices
    return matrices.swapaxes(0, 1).reshape(matrices.shape[1], groups * matrices.shape[2])


@kernel
def im2col(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> Array:
    """x (N, H, W, C) to the matrix (N*OH*OW, KH*KW*C) whose rows are the windows. May be a view of x.

    With several groups: to one matrix for each, (G, N*OH*OW, KH*KW*C/G).
    """
    n, h, w, c = x.shape
    (kh, kw), (sh, sw), (dh, dw), groups = kernel_size, geometry.stride, geometry.dilation, geometry.groups
    oh, ow = geometry.output_size((h, w), kernel_size)
    padded = pad(x, geometry)
    image, row, column, channel = padded.strides
    windows = array_module(x).lib.stride_tricks.as_strided(
        padded,
        (groups, n, oh, ow, kh, kw, c // groups),
        (channel * (c // groups), image, row * sh, column * sw, row * dh, column * dw, channel),
    )
    matrix = n * oh * ow, kh * kw * (c // groups)
    return windows.reshape(matrix if groups == 1 else (groups, *matrix))


@kernel
def col2im(cols: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry) -> Array:
    """The adjoint of im2col: its matrices to (N, H, W, C), each entry added to the pixel it came from."""
    n, h, w, c = shape
    (kh, kw), groups = kernel_size, geometry.groups
    oh, ow = geometry.output_size((h, w), kernel_size)
    top, bottom, left, right = geometry.padding
    xp = array_module(cols)
    padded = xp.zeros((n, h + top + bottom, w + left + right, groups, c // groups), dtype=cols.dtype)
    windows = cols.reshape(groups, n, oh, ow, kh * kw, c // groups)
    for k, tap in enumerate(taps(padded, kernel_size, geometry)):
        tap += xp.moveaxis(windows[:, :, :, :, k], 0, 3)  # windows overlap, so pixels are added to, never assigned
    return unpad(padded.reshape(*padded.shape[:3], c), shape, geometry)


class Epilogue(NamedTuple):
    """What follows a convolution while its results are still in the cache: + bias (O,), + add of y's shape, ReLU."""

    bias: Array | None = None
    add: Array | None = None
    relu: bool = False

    def apply(self, y: Array, images: slice = ALL, rows: slice = ALL, channels: slice = ALL) -> None:
        """Finish part of y (N, OH, OW, O), in place."""
        part = y[images, rows, :, channels]
        if self.bias is not None:
            part += self.bias[channels]
        if self.add is not None:
            part += self.add[images, rows, :, channels]
        if self.relu:
            array_module(y).maximum(part, 0, out=part)


@kernel
def conv2d(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """Cross-correlation of x (N, H, W, C) with w (KH, KW, C/G, O): y (N, OH, OW, O); then + bias (O,), + add, ReLU.

    Each group gives O/G of the channels.
    """
    kh, kw, c, o = w.shape
    if is_depthwise(w.shape, geometry):
        y = depthwise(x, w, geometry)
    else:
        oh, ow = geometry.output_size(x.shape[1:3], (kh, kw))
        w2 = by_group(w.reshape(kh * kw * c, o), geometry.groups)
        y2 = im2col(x, (kh, kw), geometry) @ w2
        y = side_by_side(y2, geometry.groups).reshape(len(x), oh, ow, o)
    Epilogue(bias, add, relu).apply(y)
    return y


@kernel
def conv2d_grad_input(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """The gradient of conv2d's x, of `shape` (N, H, W, C), from gy (N, OH, OW, O).

    A transposed convolution is the same, plus its `bias` (C,).
    """
    kh, kw, c, o = w.shape
    if is_depthwise(w.shape, geometry):
        gx = depthwise_grad_input(gy, w, shape, geometry)
    else:
        w2 = by_group(w.reshape(kh * kw * c, o), geometry.groups)
        gcols = by_group(gy.reshape(-1, o), geometry.groups) @ w2.swapaxes(-1, -2)
        gx = col2im(gcols, shape, (kh, kw), geometry)
    if bias is not None:
        gx += bias
    return gx


@kernel
def conv2d_grad_weight(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The gradient of conv2d's w, of `shape` (KH, KW, C/G, O), from gy (N, OH, OW, O)."""
    if is_depthwise(shape, geometry):
        return depthwise_grad_weight(gy, x, shape, geometry)
    cols = im2col(x, (shape[0], shape[1]), geometry)
    gw2 = cols.swapaxes(-1, -2) @ by_group(gy.reshape(-1, shape[3]), geometry.groups)
    return side_by_side(gw2, geometry.groups).reshape(shape)


# Depthwise, with one channel in and out of each group, the products above are of matrices one column wide, after a copy
# number by number. Three to four times as fast: take the window's places one by one, for all channels at once. y is
# the sum over them of what each sees, times its weights.


def is_depthwise(w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    return geometry.groups > 1 and w_shape[2:] == (1, geometry.groups)


def depthwise(x: Array, w: Array, geometry: ConvGeometry) -> Array:
    """conv2d with one channel in and out of each group."""
    kh, kw, _, c = w.shape
    y = array_module(x).zeros((len(x), *geometry.output_size(x.shape[1:3], (kh, kw)), c), dtype=x.dtype)
    for tap, weights in zip(taps(pad(x, geometry), (kh, kw), geometry), w.reshape(kh * kw, c), strict=True):
        y += tap * weights
    return y


def depthwise_grad_input(gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """conv2d_grad_input with one channel in and out of each group."""
    kh, kw, _, c = w.shape
    gx = pad(array_module(gy).zeros(shape, dtype=gy.dtype), geometry)
    for tap, weights in zip(taps(gx, (kh, kw), geometry), w.reshape(kh * kw, c), strict=True):
        tap += gy * weights
    return unpad(gx, shape, geometry)


def depthwise_grad_weight(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """conv2d_grad_weight with one channel in and out of each group."""
    windows = taps(pad(x, geometry), (shape[0], shape[1]), geometry)
    return array_module(gy).stack([sum_axes(tap * gy, (0, 1, 2)) for tap in windows]).reshape(shape)
