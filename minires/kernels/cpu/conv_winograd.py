"""3x3 convolution of stride 1 by Winograd's minimal filtering (Lavin and Gray, 2015, section 4): fewer products.

An image is cut into tiles of m x m results, each made from (m+2) x (m+2) values d and the weights g:
y = A^T ((G g G^T) * (B^T d B)) A, where * multiplies place by place. Summed over channels, each of the (m+2)^2 places
is a matrix product of tiles by channels: (m+2)^2 / m^2 products a result, where the definition takes 9. F(2x2, 3x3)
takes 4, F(4x4, 3x3) 2.25. docs/ops/conv.md derives the matrices.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import get_num_threads, parts, share
from ..dispatch import Accepts, variant
from ..kept import kept
from ..portable.conv import ConvGeometry, Epilogue, conv2d, conv2d_grad_input, conv2d_grad_weight
from .conv_questions import (
    ALONE,
    CALLS,
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
from .tiles import (
    F2,
    F4,
    WIDE,
    Minimal,
    Scratch,
    Tiles,
    cut,
    mix,
    mix_shared,
    multiply,
    multiply_transposed,
    pieces,
    put,
    spaced,
    take,
    transformed,
)

MOST_PLACES = 36 * 256  # of a block: with more the products are better, with fewer the scratch memory is smaller
CHANNELS = 256  # at most so many output channels at a time, where there are more of them than tiles


def grid(f: Minimal, y: Array) -> tuple[int, int, int]:
    """Images, and rows and columns of tiles in each, for results y (N, OH, OW, O)."""
    return len(y), -(-y.shape[1] // f.m), -(-y.shape[2] // f.m)


def run(work: Callable[[Iterator[Any]], None], items: Iterable[Any], f: Minimal, y: Array, channels: int) -> None:
    """`share`; on one thread if there is so little to multiply that it is done sooner."""
    share(work, items, most=1 if is_little(f, grid(f, y), channels, y.shape[3]) else None)


def is_little(f: Minimal, tiles: tuple[int, int, int], c: int, o: int) -> bool:
    return math.prod(tiles) * f.a**2 * c * o < ALONE


def by_channel(f: Minimal, y: Array) -> bool:
    """Whether there are more output channels than tiles. Then the weights, not the images, are what fills memory.

    All tiles are transformed first, and stay in the cache while the weights pass by, some channels at a time.
    """
    return y.shape[3] > math.prod(grid(f, y))


def channel_runs(channels: int) -> list[slice]:
    """A run of whole panels for each thread: with shorter ones threads would meet more often."""
    return pieces(channels, min(CHANNELS, WIDE * -(-channels // (WIDE * get_num_threads()))))


def all_tiles(f: Minimal, x: Array, y: Array, pads: tuple[int, int]) -> Array:
    """B^T d B of all tiles of x (N, H, W, C) that results y have, image by image: (a*a, T, C)."""
    blocks, c = cut(*grid(f, y), MOST_PLACES // f.a**2), x.shape[3]
    ends = list(itertools.accumulate(math.prod(b.shape) for b in blocks))
    v = spaced((f.a**2, ends[-1], c), 1, x.dtype)

    def work(own: Iterator[tuple[Tiles, int]]) -> None:
        scratch = Scratch(f, x, max(b.shape for b in blocks), c, pads)
        for tiles, end in own:
            d = scratch.gathered(tiles).reshape(f.a**2, -1)
            mix(f.matrices(x.dtype)[0], d, v.reshape(f.a**2, -1)[:, end * c - d.shape[1] : end * c])

    run(work, zip(blocks, ends, strict=True), f, y, c)
    return v


def convolve(
    f: Minimal, x: Array, w: Array, size: tuple[int, ...], pads: tuple[int, int], finish: Epilogue, turn: bool
) -> Array:
    """Cross-correlation of x (N, H, W, C) with w (3, 3, C, O): (N, *size, O).

    With `turn` w is (3, 3, O, C), and rotated by half a turn: so gy becomes gx.
    """
    y = empty((len(x), *size, w.shape[2 if turn else 3]), x.dtype)
    if by_channel(f, y):
        _convolve_by_channel(f, x, w, y, pads, finish, turn)
    else:
        u = kept(w, (f.m, turn), lambda: transformed(f, w, turn))
        _convolve_by_tiles(f, x, u, y, pads, finish)
    return y


def _convolve_by_tiles(f: Minimal, x: Array, u: Array, y: Array, pads: tuple[int, int], finish: Epilogue) -> None:
    c, o, m, (data, _, result) = x.shape[3], y.shape[3], f.m, f.matrices(x.dtype)
    blocks = cut(*grid(f, y), MOST_PLACES // f.a**2)

    def work(own: Iterator[Tiles]) -> None:
        scratch = Scratch(f, x, max(b.shape for b in blocks), max(c, o), pads)
        for tiles in own:
            v = scratch.mixed(data, scratch.gathered(tiles), 1).reshape(f.a**2, -1, c)
            products = scratch.view(0, (f.a**2, v.shape[1], o))
            multiply(v, u, products)
            tile = scratch.mixed(result, products, 1).reshape(m, m, *tiles.shape, o)
            rows = slice(tiles.rows.start * m, tiles.rows.stop * m)
            put(tile, y[tiles.images, rows])
            finish.apply(y, tiles.images, rows)

    run(work, blocks, f, y, c)


def _convolve_by_channel(
    f: Minimal, x: Array, w: Array, y: Array, pads: tuple[int, int], finish: Epilogue, turn: bool
) -> None:
    v, tiles, (_, _, result) = all_tiles(f, x, y, pads), grid(f, y), f.matrices(x.dtype)

    def work(own: Iterator[slice]) -> None:
        for channel in own:
            part = w[:, :, channel] if turn else w[..., channel]
            u = kept(w, (f.m, turn, channel.start, channel.stop), functools.partial(transformed, f, part, turn))
            products = spaced((f.a**2, v.shape[1], channel.stop - channel.start), 1, x.dtype)
            multiply(v, u, products)
            tile = spaced((f.m, f.m, *tiles, products.shape[2]), 2, x.dtype)
            mix(result, products.reshape(f.a**2, -1), tile.reshape(f.m**2, -1))
            put(tile, y[..., channel])
            finish.apply(y, channels=channel)

    run(work, channel_runs(y.shape[3]), f, y, x.shape[3])


def grad_weight(f: Minimal, gy: Array, x: Array, pads: tuple[int, int]) -> Array:
    """The weights' gradient (3, 3, C, O): G^T (sum over tiles of (B^T d B) * (A gy A^T)) G."""
    gw = empty((3, 3, x.shape[3], gy.shape[3]), x.dtype)
    if by_channel(f, gy):
        _grad_weight_by_channel(f, gy, x, gw, pads)
    else:
        _grad_weight_by_tiles(f, gy, x, gw, pads)
    return gw


def _grad_weight_by_tiles(f: Minimal, gy: Array, x: Array, gw: Array, pads: tuple[int, int]) -> None:
    """Each thread sums over tiles of its own; the threads' sums are added in their order, by the last product."""
    c, o, m, (data, weights, result) = x.shape[3], gy.shape[3], f.m, f.matrices(x.dtype)
    blocks = cut(*grid(f, gy), MOST_PLACES // f.a**2)
    runs = parts(len(blocks))
    sums = spaced((len(runs), f.a**2, c, o), 2, x.dtype)

    def work(own: Iterator[int]) -> None:
        scratch = Scratch(f, x, max(b.shape for b in blocks), max(c, o), pads)
        for run in own:
            for i, tiles in enumerate(blocks[runs[run]]):
                v = scratch.mixed(data, scratch.gathered(tiles), 1).reshape(f.a**2, -1, c)
                tile = scratch.view(0, (m, m, *tiles.shape, o), leading=2)
                take(tile, gy[tiles.images, tiles.rows.start * m : tiles.rows.stop * m])
                gradients = scratch.mixed(result.T, tile, 2).reshape(f.a**2, -1, o)
                multiply_transposed(v, gradients, sums[run], add=i > 0)

    share(work, range(len(runs)))
    mix_shared(np.tile(weights.T, len(runs)), sums.reshape(len(runs) * f.a**2, -1), gw.reshape(9, -1))


def _grad_weight_by_channel(f: Minimal, gy: Array, x: Array, gw: Array, pads: tuple[int, int]) -> None:
    v, tiles, m, (_, weights, result) = all_tiles(f, x, gy, pads), grid(f, gy), f.m, f.matrices(x.dtype)

    def work(own: Iterator[slice]) -> None:
        for channel in own:
            part = gy[..., channel]
            tile = spaced((m, m, *tiles, part.shape[3]), 2, x.dtype)
            take(tile, part)
            gradients = spaced((f.a**2, v.shape[1], part.shape[3]), 1, x.dtype)
            mix(result.T, tile.reshape(m * m, -1), gradients.reshape(f.a**2, -1))
            sums = spaced((f.a**2, x.shape[3], part.shape[3]), 1, x.dtype)
            multiply_transposed(v, gradients, sums, add=False)
            done = empty((9, x.shape[3] * part.shape[3]), x.dtype)
            mix(weights.T, sums.reshape(f.a**2, -1), done)
            gw[..., channel] = done.reshape(3, 3, x.shape[3], -1)

    share(work, channel_runs(gy.shape[3]))


ON_CPU = Accepts("cpu")


def suits(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """3x3 weights, stride 1, no dilation, one group, pads of at most 2, and nothing empty"""
    simple = geometry == ConvGeometry(padding=geometry.padding) and max(geometry.padding) <= 2
    return simple and w_shape[:2] == (3, 3) and not is_empty(x_shape, w_shape, geometry)


def seconds(f: Minimal, x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> float:
    """The products by the weights and by the small matrices, the copies, and the weights, made once and read once."""
    size, (c, o), places = geometry.output_size(x_shape[1:3], (3, 3)), w_shape[2:], f.a**2
    tiles = x_shape[0], -(-size[0] // f.m), -(-size[1] // f.m)
    products = places * (c * o + c * places + o * f.m**2)
    copies = places * (c + o) + f.m**2 * o
    busy = math.prod(tiles) * (products / PRODUCT + copies / COPY)
    return (CALLS + 2 * busy if is_little(f, tiles, c, o) else busy + SHARED) + places * c * o / STREAM


cost2, cost4 = functools.partial(seconds, F2), functools.partial(seconds, F4)


def _forward(f: Minimal, x: Array, w: Array, geometry: ConvGeometry, finish: Epilogue) -> Array:
    size = geometry.output_size(x.shape[1:3], (3, 3))
    return convolve(f, x, w, size, geometry.padding[::2], finish, turn=False)


def _adjoint(
    f: Minimal, gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None
) -> Array:
    top, _, left, _ = geometry.padding
    return convolve(f, gy, w, shape[1:3], (2 - top, 2 - left), Epilogue(bias), turn=True)


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits), cost=conv2d_costs(cost2))
def conv2d_winograd2(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """F(2x2, 3x3): 4 products a result instead of 9."""
    return _forward(F2, x, w, geometry, Epilogue(bias, add, relu))


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits), cost=conv2d_costs(cost4), precision="fast")
def conv2d_winograd4(
    x: Array,
    w: Array,
    geometry: ConvGeometry,
    bias: Array | None = None,
    add: Array | None = None,
    relu: bool = False,
) -> Array:
    """F(4x4, 3x3): 2.25 products a result; about five times the rounding error."""
    return _forward(F4, x, w, geometry, Epilogue(bias, add, relu))


@variant(conv2d_grad_input, ON_CPU, suits=grad_input_asks(suits), cost=grad_input_asks(cost2))
def conv2d_grad_input_winograd2(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """F(2x2, 3x3) on gy and the turned weights."""
    return _adjoint(F2, gy, w, shape, geometry, bias)


@variant(conv2d_grad_input, ON_CPU, suits=grad_input_asks(suits), cost=grad_input_asks(cost4), precision="fast")
def conv2d_grad_input_winograd4(
    gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None
) -> Array:
    """F(4x4, 3x3) on gy and the turned weights."""
    return _adjoint(F4, gy, w, shape, geometry, bias)


@variant(conv2d_grad_weight, ON_CPU, suits=grad_weight_asks(suits), cost=grad_weight_asks(cost2))
def conv2d_grad_weight_winograd2(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The adjoint of F(2x2, 3x3) in its weights."""
    return grad_weight(F2, gy, x, geometry.padding[::2])


@variant(conv2d_grad_weight, ON_CPU, suits=grad_weight_asks(suits), cost=grad_weight_asks(cost4), precision="fast")
def conv2d_grad_weight_winograd4(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Array:
    """The adjoint of F(4x4, 3x3) in its weights."""
    return grad_weight(F4, gy, x, geometry.padding[::2])
