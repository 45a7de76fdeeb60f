"""Convolution on a few images at a time: the same products, on columns that stay small."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...device import Array
from ..dispatch import Accepts, variant
from ..portable.conv import (
    ConvGeometry,
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

# The columns of a whole batch are up to KH*KW times as large as its images: 300 MB for one layer of ResNet-18 at
# batch 128. Blocks of about this many bytes use memory that the allocator hands back warm, and still give
# the matrix product enough rows. (Depthwise, the same blocks have images of about 1 MB, which stay in the cache from
# one place of the window to the next.)
COLUMN_BYTES = 8 << 20

ON_CPU = Accepts("cpu", contiguous=False)


def blocks(images: int, bytes_per_image: int) -> Iterator[slice]:
    """Slices that cut a batch into blocks of images whose columns fill about COLUMN_BYTES."""
    step = max(1, COLUMN_BYTES // max(1, bytes_per_image))
    for start in range(0, images, step):
        yield slice(start, start + step)


def _column_bytes(w_shape: tuple[int, ...], pixels: int, geometry: ConvGeometry, x: Array) -> int:
    kh, kw, c, _ = w_shape
    return pixels * kh * kw * c * geometry.groups * x.itemsize


@variant(conv2d, ON_CPU)
def conv2d_blocked(x: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """im2col and product, block by block, each written to its place in y."""
    kh, kw, c, o = w.shape
    oh, ow = geometry.output_size(x.shape[1:3], (kh, kw))
    y = np.empty((len(x), oh, ow, o), dtype=x.dtype)
    w2 = by_group(w.reshape(kh * kw * c, o), geometry.groups)
    for block in blocks(len(x), _column_bytes(w.shape, oh * ow, geometry, x)):
        part = y[block]
        if is_depthwise(w.shape, geometry):
            part[...] = depthwise(x[block], w, geometry)
        else:
            y2 = by_group(part.reshape(-1, o), geometry.groups)
            np.matmul(im2col(x[block], (kh, kw), geometry), w2, out=y2)
        if bias is not None:
            part += bias
    return y


@variant(conv2d_grad_input, ON_CPU)
def conv2d_grad_input_blocked(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """Product and col2im, block by block."""
    kh, kw, c, o = w.shape
    gx = np.empty(shape, dtype=gy.dtype)
    w2t = by_group(w.reshape(kh * kw * c, o), geometry.groups).swapaxes(-1, -2)
    for block in blocks(len(gy), _column_bytes(w.shape, gy.shape[1] * gy.shape[2], geometry, gy)):
        part = gx[block]
        if is_depthwise(w.shape, geometry):
            part[...] = depthwise_grad_input(gy[block], w, part.shape, geometry)
        else:
            gy2 = by_group(gy[block].reshape(-1, o), geometry.groups)
            part[...] = col2im(gy2 @ w2t, part.shape, (kh, kw), geometry)
        if bias is not None:
            part += bias
    return gx


@variant(conv2d_grad_weight, ON_CPU)
def conv2d_grad_weight_blocked(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The blocks' products are summed, in the order of the images."""
    kh, kw, c, o = shape
    gw2 = np.zeros((kh * kw * c, o), dtype=gy.dtype)
    for block in blocks(len(x), _column_bytes(shape, gy.shape[1] * gy.shape[2], geometry, x)):
        if is_depthwise(shape, geometry):
            gw2 += depthwise_grad_weight(gy[block], x[block], shape, geometry).reshape(gw2.shape)
        else:
            gy2 = by_group(gy[block].reshape(-1, o), geometry.groups)
            # The columns get no name, which would keep them while the next block's are made, in memory not yet warm.
            gw2 += side_by_side(im2col(x[block], (kh, kw), geometry).swapaxes(-1, -2) @ gy2, geometry.groups)
    return gw2.reshape(shape)
