"""Max and average pooling, over the windows that convolution uses or over a given number of windows."""

from __future__ import annotations

import math
from collections.abc import Iterator

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
    windows = taps(pad(x, geometry, lowest), kernel_size, geometry)
    y = next(windows).copy()
    index = xp.empty(y.shape, dtype=index_type(kernel_size))
    index[...] = first_places(y, kernel_size, geometry)
    for k, tap in enumerate(windows, start=1):
        better = (tap > y) | (tap != tap)
        xp.copyto(y, tap, where=better)
        xp.copyto(index, index.dtype.type(k), where=better)
    return y, index


def index_type(kernel_size: tuple[int, int]) -> str:
    """The smallest type that counts the places of a window."""
    return "uint8" if math.prod(kernel_size) <= 256 else "int32"


def first_places(y: Array, kernel_size: tuple[int, int], geometry: ConvGeometry) -> Array:
    """Each window's first place on the image, (OH, OW, 1): it wins where all are the lowest there is, as padding is."""
    xp = array_module(y)
    (oh, ow), (sh, sw), (top, _, left, _) = y.shape[1:3], geometry.stride, geometry.padding
    row = xp.maximum(-((sh * xp.arange(oh) - top) // geometry.dilation[0]), 0)
    column = xp.maximum(-((sw * xp.arange(ow) - left) // geometry.dilation[1]), 0)
    return (row[:, None] * kernel_size[1] + column)[:, :, None]


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


# Adaptive pooling spreads `count` windows over `size` places: window i holds those from floor(i*size/count) up to
# ceil((i + 1)*size/count). Neighbours may share places. The windows that hold place k are those from
# floor(k*count/size) up to ceil((k + 1)*count/size): the same rule with size and count exchanged. So gradients gather,
# as values do.


def spans(size: int, count: int) -> list[tuple[int, int]]:
    """First place and end of each of `count` windows over `size` places."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _span_taps(like: Array, size: int, count: int) -> Iterator[tuple[Array, Array]]:
    """For the windows' first places, their second ones and so on: (count,) places, and whether they are in the window.

    A window that has no such place shows its last one again.
    """
    xp = array_module(like)
    window = xp.arange(count)  # bounds are made where the array is: an upload would hold up the GPU
    first, end = window * size // count, -(-(window + 1) * size // count)
    for i in range(max(stop - start for start, stop in spans(size, count))):
        yield xp.minimum(first + i, end - 1), first + i < end


def _along(values: Array, axis: int) -> Array:
    """A vector, as an array that broadcasts along this axis of (N, H, W, C)."""
    return values.reshape([-1 if i == axis else 1 for i in range(4)])


def _window_sums(x: Array, size: tuple[int, int]) -> Array:
    """The sum of each of size[0] x size[1] windows of x (N, H, W, C): down the rows, then along them."""
    xp = array_module(x)
    for axis, count in zip((1, 2), size, strict=True):
        sums = xp.zeros((*x.shape[:axis], count, *x.shape[axis + 1 :]), dtype=x.dtype)
        for at, inside in _span_taps(x, x.shape[axis], count):
            sums += xp.where(_along(inside, axis), x.take(at, axis=axis), 0)
        x = sums
    return x


def _window_counts(like: Array, shape: tuple[int, ...], size: tuple[int, int]) -> Array:
    """How many places each window of images of `shape` has: (OH, OW, 1)."""
    return _window_sums(array_module(like).ones((1, *shape[1:3], 1), dtype=like.dtype), size)[0]


@kernel
def adaptive_avg_pool2d(x: Array, output_size: tuple[int, int]) -> Array:
    """The mean of each of OH x OW windows of x (N, H, W, C): y (N, OH, OW, C)."""
    return _window_sums(x, output_size) / _window_counts(x, x.shape, output_size)


@kernel
def adaptive_avg_pool2d_grad(gy: Array, shape: tuple[int, ...]) -> Array:
    """Each pixel gets the sum of gy / count over the windows that hold it, which are windows over gy."""
    return _window_sums(gy / _window_counts(gy, shape, gy.shape[1:3]), (shape[1], shape[2]))


@kernel
def adaptive_max_pool2d(x: Array, output_size: tuple[int, int]) -> tuple[Array, Array]:
    """The largest of each of OH x OW windows, y (N, OH, OW, C), and the pixel that it was: index, h*W + w, int32.

    The first of equals is taken, NaN counts as largest. Along the rows first, then down them: the first pixel in the
    first row is the first of all.
    """
    y, column = _largest(x, 2, output_size[1])
    y, row = _largest(y, 1, output_size[0])
    return y, row * x.shape[2] + array_module(x).take_along_axis(column, row, axis=1)


def _largest(x: Array, axis: int, count: int) -> tuple[Array, Array]:
    """The largest of each of `count` windows along an axis, and its place there."""
    xp = array_module(x)
    windows = _span_taps(x, x.shape[axis], count)
    first = next(windows)[0]
    y = x.take(first, axis=axis)
    place = xp.empty(y.shape, dtype=xp.int32)
    place[...] = _along(first, axis)
    for at, _ in windows:
        tap = x.take(at, axis=axis)
        better = (tap > y) | (tap != tap)
        xp.copyto(y, tap, where=better)
        xp.copyto(place, _along(at.astype(xp.int32), axis), where=better)
    return y, place


@kernel
def adaptive_max_pool2d_grad(gy: Array, index: Array, shape: tuple[int, ...]) -> Array:
    """Each pixel gets the sum of gy over the windows that hold it and that it won."""
    xp, (_, h, w, _), (_, oh, ow, _) = array_module(gy), shape, gy.shape
    pixel = xp.arange(h * w).reshape(h, w, 1)
    gx = xp.zeros(shape, dtype=gy.dtype)
    for row, above in _span_taps(gy, oh, h):
        gy_rows, index_rows = gy.take(row, axis=1), index.take(row, axis=1)
        for column, left in _span_taps(gy, ow, w):
            won = index_rows.take(column, axis=2) == pixel
            gx += xp.where(won & _along(above, 1) & _along(left, 2), gy_rows.take(column, axis=2), 0)
    return gx
