"""Max and average pooling over the windows that convolution uses."""

from __future__ import annotations

from ...device import Array, array_module
from ..dispatch import kernel
from .conv import ConvGeometry, pad, taps, unpad


@kernel
def max_pool2d(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> tuple[Array, Array]:
    """The largest of each window, y (N, OH, OW, C), and which one it was: index (N, OH, OW, C), counting taps from 0.

    The first of equals is taken, NaN counts as largest, padding never wins.
    """
    xp = array_module(x)
    lowest = -xp.inf if x.dtype.kind == "f" else xp.iinfo(x.dtype).min
    index_type = xp.uint8 if kernel_size[0] * kernel_size[1] <= 256 else xp.int32
    windows = taps(pad(x, geometry, lowest), kernel_size, geometry)
    y = next(windows).copy()
    # A window whose values are all the lowest is won by its first place on the image, never by padding.
    (oh, ow), (sh, sw), (top, _, left, _) = y.shape[1:3], geometry.stride, geometry.padding
    row, column = xp.maximum(top - sh * xp.arange(oh), 0), xp.maximum(left - sw * xp.arange(ow), 0)
    index = xp.empty(y.shape, dtype=index_type)
    index[...] = (row[:, None] * kernel_size[1] + column)[:, :, None]
    for k, tap in enumerate(windows, start=1):
        better = (tap > y) | (tap != tap)
        xp.copyto(y, tap, where=better)
        xp.copyto(index, index_type(k), where=better)
    return y, index


@kernel
def max_pool2d_grad(
    gy: Array, index: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry
) -> Array:
    """Each gy goes to the pixel that won its window; a pixel that won several windows gets their sum."""
    gx = pad(array_module(gy).zeros(shape, dtype=gy.dtype), geometry)
    for k, tap in enumerate(taps(gx, kernel_size, geometry)):
        tap += array_module(gy).where(index == k, gy, 0)
    return unpad(gx, shape, geometry)


@kernel
def avg_pool2d(x: Array, kernel_size: tuple[int, int], geometry: ConvGeometry, count: Array) -> Array:
    """The sum of each window over `count`: y (N, OH, OW, C). `count` is a number or broadcasts from (OH, OW, 1)."""
    windows = taps(pad(x, geometry), kernel_size, geometry)
    y = next(windows).copy()
    for tap in windows:
        y += tap
    y /= count
    return y


@kernel
def avg_pool2d_grad(
    gy: Array, shape: tuple[int, ...], kernel_size: tuple[int, int], geometry: ConvGeometry, count: Array
) -> Array:
    """Each gy / count goes to every pixel of its window."""
    share = gy / count
    gx = pad(array_module(gy).zeros(shape, dtype=gy.dtype), geometry)
    for tap in taps(gx, kernel_size, geometry):
        tap += share
    return unpad(gx, shape, geometry)
