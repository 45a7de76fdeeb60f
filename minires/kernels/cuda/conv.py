"""Convolution by im2col and cuBLAS, a chunk of images at a time, in strict float32 or in TF32."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...device import Array, array_module
from ..dispatch import variant
from ..portable.conv import ConvGeometry, col2im, conv2d, conv2d_grad_input, conv2d_grad_weight, im2col
from .blas import gemm
from .compiler import COLUMNS, THREADS, blocks, launch, tiles, vector
from .norm import ON_GPU

COLUMN_BYTES = 1 << 28  # of a chunk's im2col matrix, and of its images
_FIELDS = ("H", "W", "C", "OH", "OW", "KH", "KW", "sh", "sw", "top", "left", "dh", "dw", "unused")
_WINDOW = np.dtype([(name, np.int32) for name in _FIELDS])


def window(shape: tuple[int, ...], kernel: tuple[int, int], geometry: ConvGeometry) -> np.ndarray:
    """common.cuh's Window, for images of `shape`."""
    top, _, left, _ = geometry.padding
    sizes = *shape[1:], *geometry.output_size(shape[1:3], kernel), *kernel
    return np.array((*sizes, *geometry.stride, top, left, *geometry.dilation, 0), _WINDOW)


def _image_bytes(shape: tuple[int, ...], kernel: tuple[int, int], geometry: ConvGeometry) -> int:
    """Of one image's im2col matrix, or of the image itself if that is larger."""
    oh, ow = geometry.output_size(shape[1:3], kernel)
    return 4 * max(oh * ow * math.prod(kernel) * shape[3], math.prod(shape[1:]))


def _fits(shape: tuple[int, ...], kernel: tuple[int, int], geometry: ConvGeometry) -> bool:
    size = _image_bytes(shape, kernel, geometry)
    return geometry.groups == 1 and min(shape) > 0 and shape[3] <= COLUMNS and size < 1 << 33


def one_group(x: Array, kernel: tuple[int, int], geometry: ConvGeometry) -> bool:
    """one group of channels, images that are not empty"""
    return _fits(x.shape, kernel, geometry)


def one_group_cols(cols: Array, shape: tuple[int, ...], kernel: tuple[int, int], geometry: ConvGeometry) -> bool:
    """one group of channels, images that are not empty"""
    return _fits(shape, kernel, geometry)


def one_group_forward(x: Array, w: Array, geometry: ConvGeometry, *epilogue: Any, **settings: Any) -> bool:
    """one group of channels, images that are not empty"""
    return _fits(x.shape, w.shape[:2], geometry) and w.shape[3] <= COLUMNS


def one_group_input(gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Any = None) -> bool:
    """one group of channels, images that are not empty"""
    return _fits(shape, w.shape[:2], geometry)


def one_group_weight(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """one group of channels, images that are not empty"""
    return _fits(x.shape, (shape[0], shape[1]), geometry)


@variant(im2col, ON_GPU, suits=one_group)
def im2col_cuda(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> Array:
    """Every thread copies one place of a window."""
    oh, ow = geometry.output_size(x.shape[1:3], kernel_size)
    cols = array_module(x).empty((len(x) * oh * ow, math.prod(kernel_size) * x.shape[3]), x.dtype)
    for part, rows in _chunks(x.shape, kernel_size, geometry):
        _gather("im2col", x[part], cols[rows], cols[rows].size, x.shape, kernel_size, geometry)
    return cols


@variant(col2im, ON_GPU, suits=one_group_cols)
def col2im_cuda(cols: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry) -> Array:
    """Every pixel gathers its sum, in the portable kernel's order."""
    x = array_module(cols).empty(shape, cols.dtype)
    for part, rows in _chunks(shape, kernel_size, geometry):
        _gather("col2im", cols[rows], x[part], x[part].size, shape, kernel_size, geometry)
    return x


def _gather(
    name: str, source: Array, target: Array, size: int, shape: tuple[int, ...], kernel: tuple[int, int], geometry: Any
) -> None:
    width = vector(shape[3], source, target)
    moves = window(shape, kernel, geometry)
    launch("conv", name, (blocks(size // width),), THREADS, source, target, size // width, moves, width=width)


def _chunks(shape: tuple[int, ...], kernel: tuple[int, int], geometry: ConvGeometry) -> Iterator[tuple[slice, slice]]:
    """Images, and the rows of their im2col matrix, as many at a time as COLUMN_BYTES hold."""
    oh, ow = geometry.output_size(shape[1:3], kernel)
    step = max(1, COLUMN_BYTES // _image_bytes(shape, kernel, geometry))
    for start in range(0, shape[0], step):
        part = slice(start, min(start + step, shape[0]))
        yield part, slice(part.start * oh * ow, part.stop * oh * ow)


def _is_pointwise(kernel: tuple[int, int], geometry: ConvGeometry) -> bool:
    """Whether the im2col matrix is x itself."""
    return kernel == (1, 1) and geometry == ConvGeometry(dilation=geometry.dilation)


def _columns(x: Array, kernel: tuple[int, int], geometry: ConvGeometry) -> Iterator[tuple[Array, slice]]:
    """The im2col matrix chunk by chunk, with the rows that it holds."""
    if _is_pointwise(kernel, geometry):
        yield x.reshape(-1, x.shape[3]), slice(None)
        return
    for part, rows in _chunks(x.shape, kernel, geometry):
        yield im2col_cuda(x[part], kernel, geometry), rows


def _finish(y: Array, bias: Array | None, add: Array | None, relu: bool) -> None:
    if bias is None and add is None and not relu:
        return
    channels = y.shape[3]
    width = vector(channels, y, bias, add)
    groups, rows, grid = tiles(y.size // channels, channels, width)
    launch(
        "conv", "conv_epilogue", grid, THREADS, y, bias, add, y.size // channels, channels, groups, rows, relu,
        width=width,
    )  # fmt: skip


def _forward(
    x: Array, w: Array, geometry: ConvGeometry, bias: Array | None, add: Array | None, relu: bool, tf32: bool
) -> Array:
    kh, kw, c, o = w.shape
    y = array_module(x).empty((len(x), *geometry.output_size(x.shape[1:3], (kh, kw)), o), x.dtype)
    y2, w2 = y.reshape(-1, o), w.reshape(kh * kw * c, o)
    for cols, rows in _columns(x, (kh, kw), geometry):
        gemm(cols, w2, y2[rows], tf32=tf32)
    _finish(y, bias, add, relu)
    return y


def _grad_input(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None, tf32: bool
) -> Array:
    kh, kw, c, o = w.shape
    xp = array_module(gy)
    gx = xp.empty(shape, gy.dtype)
    gy2, w2 = gy.reshape(-1, o), w.reshape(kh * kw * c, o)
    if _is_pointwise((kh, kw), geometry):
        gemm(gy2, w2, gx.reshape(-1, c), transpose_b=True, tf32=tf32)
    else:
        for part, rows in _chunks(shape, (kh, kw), geometry):
            gcols = xp.empty((rows.stop - rows.start, kh * kw * c), gy.dtype)
            gemm(gy2[rows], w2, gcols, transpose_b=True, tf32=tf32)
            _gather("col2im", gcols, gx[part], gx[part].size, shape, (kh, kw), geometry)
    _finish(gx, bias, None, False)
    return gx


def _grad_weight(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry, tf32: bool) -> Array:
    kh, kw, c, o = shape
    gw = array_module(gy).empty(shape, gy.dtype)
    gy2, gw2 = gy.reshape(-1, o), gw.reshape(kh * kw * c, o)
    for cols, rows in _columns(x, (kh, kw), geometry):
        gemm(cols, gy2[rows], gw2, transpose_a=True, add=bool(rows.start), tf32=tf32)
    return gw


# Of variants that claim equal times the first registered runs: TF32 wherever it is allowed.


@variant(conv2d, ON_GPU, suits=one_group_forward, precision="tf32")
def conv2d_tf32(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """im2col and cuBLAS on tensor cores, which round x and w to TF32; bias, sum and ReLU in one pass."""
    return _forward(x, w, geometry, bias, add, relu, tf32=True)


@variant(conv2d, ON_GPU, suits=one_group_forward)
def conv2d_cuda(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """The same in strict float32."""
    return _forward(x, w, geometry, bias, add, relu, tf32=False)


@variant(conv2d_grad_input, ON_GPU, suits=one_group_input, precision="tf32")
def conv2d_grad_input_tf32(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """cuBLAS in TF32, then each pixel gathers."""
    return _grad_input(gy, w, shape, geometry, bias, tf32=True)


@variant(conv2d_grad_input, ON_GPU, suits=one_group_input)
def conv2d_grad_input_cuda(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """The same in strict float32."""
    return _grad_input(gy, w, shape, geometry, bias, tf32=False)


@variant(conv2d_grad_weight, ON_GPU, suits=one_group_weight, precision="tf32")
def conv2d_grad_weight_tf32(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The im2col matrix is made anew, and multiplied by cuBLAS in TF32; chunks are added in their order."""
    return _grad_weight(gy, x, shape, geometry, tf32=True)


@variant(conv2d_grad_weight, ON_GPU, suits=one_group_weight)
def conv2d_grad_weight_cuda(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The same in strict float32."""
    return _grad_weight(gy, x, shape, geometry, tf32=False)
