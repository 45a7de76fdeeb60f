"""Convolution as one matrix product: im2col lays every window out as a row, col2im is its adjoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...device import Array, array_module
from ..dispatch import kernel


@dataclass(frozen=True)
class ConvGeometry:
    """How a window moves over an image: steps (rows, columns) and zeros around it (top, bottom, left, right)."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def output_size(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        """Output rows and columns for an input of `size` under a window of `kernel`: floor((H + pads - KH) / S) + 1."""
        top, bottom, left, right = self.padding
        rows = (size[0] + top + bottom - kernel[0]) // self.stride[0] + 1
        columns = (size[1] + left + right - kernel[1]) // self.stride[1] + 1
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
    """For each place (i, j) in the window, row by row: the view (N, OH, OW, C) of padded x that it sees as it moves."""
    (sh, sw), (kh, kw) = geometry.stride, kernel_size
    oh, ow = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    for i in range(kh):
        for j in range(kw):
            yield x[:, i : i + sh * oh : sh, j : j + sw * ow : sw]


@kernel
def im2col(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> Array:
    """x (N, H, W, C) to the matrix (N*OH*OW, KH*KW*C) whose rows are the windows. May be a view of x."""
    n, h, w, c = x.shape
    (kh, kw), (sh, sw) = kernel_size, geometry.stride
    oh, ow = geometry.output_size((h, w), kernel_size)
    padded = pad(x, geometry)
    image, row, column, channel = padded.strides
    windows = array_module(x).lib.stride_tricks.as_strided(
        padded, (n, oh, ow, kh, kw, c), (image, row * sh, column * sw, row, column, channel)
    )
    return windows.reshape(n * oh * ow, kh * kw * c)


@kernel
def col2im(cols: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry) -> Array:
    """The adjoint of im2col: cols (N*OH*OW, KH*KW*C) to (N, H, W, C), each entry added to the pixel it came from."""
    n, h, w, c = shape
    kh, kw = kernel_size
    oh, ow = geometry.output_size((h, w), kernel_size)
    top, bottom, left, right = geometry.padding
    padded = array_module(cols).zeros((n, h + top + bottom, w + left + right, c), dtype=cols.dtype)
    windows = cols.reshape(n, oh, ow, kh * kw, c)
    for k, tap in enumerate(taps(padded, kernel_size, geometry)):
        tap += windows[:, :, :, k]  # windows overlap, so pixels are added to, never assigned
    return unpad(padded, shape, geometry)


@kernel
def conv2d(x: Array, w: Array, geometry: ConvGeometry) -> Array:
    """Cross-correlation of x (N, H, W, C) with w (KH, KW, C, O): y (N, OH, OW, O)."""
    kh, kw, c, o = w.shape
    oh, ow = geometry.output_size(x.shape[1:3], (kh, kw))
    cols = im2col(x, (kh, kw), geometry)
    return (cols @ w.reshape(kh * kw * c, o)).reshape(len(x), oh, ow, o)


@kernel
def conv2d_grad_input(gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The gradient of conv2d's x, of `shape` (N, H, W, C), from gy (N, OH, OW, O)."""
    kh, kw, c, o = w.shape
    gcols = gy.reshape(-1, o) @ w.reshape(kh * kw * c, o).T
    return col2im(gcols, shape, (kh, kw), geometry)


@kernel
def conv2d_grad_weight(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The gradient of conv2d's w, of `shape` (KH, KW, C, O), from gy (N, OH, OW, O)."""
    cols = im2col(x, (shape[0], shape[1]), geometry)
    return (cols.T @ gy.reshape(-1, shape[3])).reshape(shape)
