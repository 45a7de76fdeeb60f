"""Convolution on a few images at a time: the same products, on columns that stay small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...device import Array
from ..dispatch import Accepts, variant
from ..portable.conv import ConvGeometry, col2im, conv2d, conv2d_grad_input, conv2d_grad_weight, im2col

# The columns of a whole batch are up to KH*KW times as large as its images: 300 MB for one layer of ResNet-18 at
# batch 128. Blocks of about this many bytes use memory that the allocator hands back warm, and still give
# the matrix product enough rows.
COLUMN_BYTES = 8 << 20

ON_CPU = Accepts("cpu", contiguous=False)


def blocks(images: int, bytes_per_image: int) -> Iterator[slice]:
    """Slices that cut a batch into blocks of images whose columns fill about COLUMN_BYTES."""
    step = max(1, COLUMN_BYTES // max(1, bytes_per_image))
    for start in range(0, images, step):
        yield slice(start, start + step)


def _column_bytes(w_shape: tuple[int, ...], pixels: int, x: Array) -> int:
    kh, kw, c, _ = w_shape
    return pixels * kh * kw * c * x.itemsize


@variant(conv2d, ON_CPU)
def conv2d_blocked(x: Array, w: Array, geometry: ConvGeometry) -> Array:
    """im2col and product, block by block, each written to its place in y."""
    kh, kw, c, o = w.shape
    oh, ow = geometry.output_size(x.shape[1:3], (kh, kw))
    y = np.empty((len(x), oh, ow, o), dtype=x.dtype)
    w2 = w.reshape(kh * kw * c, o)
    for block in blocks(len(x), _column_bytes(w.shape, oh * ow, x)):
        np.matmul(im2col(x[block], (kh, kw), geometry), w2, out=y[block].reshape(-1, o))
    return y


@variant(conv2d_grad_input, ON_CPU)
def conv2d_grad_input_blocked(gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """Product and col2im, block by block."""
    kh, kw, c, o = w.shape
    gx = np.empty(shape, dtype=gy.dtype)
    w2t = w.reshape(kh * kw * c, o).T
    for block in blocks(len(gy), _column_bytes(w.shape, gy.shape[1] * gy.shape[2], gy)):
        gcols = gy[block].reshape(-1, o) @ w2t
        gx[block] = col2im(gcols, gx[block].shape, (kh, kw), geometry)
    return gx


@variant(conv2d_grad_weight, ON_CPU)
def conv2d_grad_weight_blocked(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The blocks' products are summed, in the order of the images."""
    kh, kw, c, o = shape
    gw = np.zeros(shape, dtype=gy.dtype)
    gw2 = gw.reshape(kh * kw * c, o)
    for block in blocks(len(x), _column_bytes(shape, gy.shape[1] * gy.shape[2], x)):
        gw2 += im2col(x[block], (kh, kw), geometry).T @ gy[block].reshape(-1, o)
    return gw
