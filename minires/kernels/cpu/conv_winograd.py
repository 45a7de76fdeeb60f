"""3x3 convolution of stride 1 by Winograd's minimal filtering (Lavin and Gray, 2015, section 4): fewer products.

An image is cut into tiles of m x m results, each made from (m+2) x (m+2) values d and the weights g:
y = A^T ((G g G^T) * (B^T d B)) A, where * multiplies place by place. Summed over channels, each of the (m+2)^2 places
is a matrix product of tiles by channels: (m+2)^2 / m^2 products a result, where the definition takes 9. F(2x2, 3x3)
takes 4, F(4x4, 3x3) 2.25. docs/ops/conv.md derives the matrices.

On matrices laid out as rows, X -> M^T X M is one product with kron(M, M)^T. So every step is a matrix product.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import get_num_threads, parts, share
from ..dispatch import Accepts, variant
from ..kept import kept
from ..portable.conv import ConvGeometry, conv2d, conv2d_grad_input, conv2d_grad_weight
from .conv_questions import COPY, PRODUCT, STREAM, conv2d_asks, grad_input_asks, grad_weight_asks, is_empty

COLUMNS = (
    512  # a product of so few columns skips BLAS's packing of its operands, which these small matrices do not repay
)
ROWS, SMALL_PRODUCT = 64, 64 * 64  # likewise, of tiles by channels
PLACES = (
    36 * 256
)  # a*a times the tiles at a time: the more, the better the products; the fewer, the less scratch memory


@dataclass(frozen=True)
class Minimal:
    """F(m x m, 3x3). Its matrices work on tiles laid out as rows: (a*a, a*a), (a*a, 9) and (m*m, a*a), a = m + 2."""

    m: int
    BT: tuple[tuple[float, ...], ...]
    G: tuple[tuple[float, ...], ...]
    AT: tuple[tuple[float, ...], ...]

    @property
    def a(self) -> int:
        return self.m + 2

    @functools.cache  # noqa: B019 (there are two of them, for good)
    def matrices(self, dtype: Any) -> tuple[Array, Array, Array]:
        """kron(B, B)^T, kron(G, G) and kron(A, A)^T."""
        data, weights, result = (np.kron(matrix, matrix).astype(dtype) for matrix in (self.BT, self.G, self.AT))
        return data, weights, result


F2 = Minimal(
    2,
    BT=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    G=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    AT=((1, 1, 1, 0), (0, 1, -1, -1)),
)
F4 = Minimal(
    4,
    BT=(
        (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
    ),
    G=(
        (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
    ),
    AT=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)  # fmt: skip


def mix(matrix: Array, x: Array, out: Array) -> None:
    """out (R, n) = matrix (R, S) @ x (S, n), a few columns at a time."""
    whole = x.shape[1] // COLUMNS * COLUMNS
    if whole:
        pieces = [v[:, :whole].reshape(len(v), -1, COLUMNS).swapaxes(0, 1) for v in (x, out)]
        np.matmul(matrix, pieces[0], out=pieces[1])
    if whole < x.shape[1]:
        np.matmul(matrix, x[:, whole:], out=out[:, whole:])


def mix_shared(matrix: Array, x: Array, shape: tuple[int, ...]) -> Array:
    """matrix @ x, as an array of `shape`, by all threads."""
    out = empty(shape, x.dtype)
    out2, step = out.reshape(len(matrix), -1), 16 * COLUMNS

    def work(starts: Iterator[int]) -> None:
        for start in starts:
            mix(matrix, x[:, start : start + step], out2[:, start : start + step])

    share(work, range(0, x.shape[1], step))
    return out


def transformed(f: Minimal, w: Array) -> Array:
    """G g G^T for each pair of channels of w (3, 3, C, O): (a*a, C, O)."""
    return mix_shared(f.matrices(w.dtype)[1], w.reshape(9, -1), (f.a**2, *w.shape[2:]))


def pieces(count: int, step: int) -> list[slice]:
    """range(count) in slices of `step`, the last of what is left."""
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


class Tiles(NamedTuple):
    """A block of tiles: of these images, these rows of tiles; shape (images, rows, columns)."""

    images: slice
    rows: slice
    shape: tuple[int, int, int]


def cut(f: Minimal, images: int, size: tuple[int, ...], share_of: int) -> list[Tiles]:
    """Blocks of tiles of results of `size`: whole images, or some rows of one; one of `share_of` at the most."""
    rows, columns = -(-size[0] // f.m), -(-size[1] // f.m)
    most = max(1, min(PLACES // f.a**2, -(-images * rows * columns // share_of)))
    n, r = max(1, most // (rows * columns)), min(rows, max(1, most // columns))
    return [
        Tiles(
            slice(i, i + min(n, images - i)),
            slice(j, j + min(r, rows - j)),
            (min(n, images - i), min(r, rows - j), columns),
        )
        for i in range(0, images, n)
        for j in range(0, rows, r)
    ]


class Scratch:
    """One thread's memory for a block of tiles. Each step reads one of the three memories and writes another."""

    def __init__(self, f: Minimal, x: Array, most: tuple[int, int, int], channels: int, pads: tuple[int, int]) -> None:
        self.f, self.x, self.pads = f, x, pads
        n, rows, columns = most
        self.padded = empty((n, rows * f.m + 2, columns * f.m + 2, x.shape[3]), x.dtype)
        self.padded[...] = 0
        self.memory = [empty((f.a**2 * n * rows * columns * channels,), x.dtype) for _ in range(3)]

    def view(self, which: int, shape: tuple[int, ...]) -> Array:
        return self.memory[which][: math.prod(shape)].reshape(shape)

    def gathered(self, tiles: Tiles) -> Array:
        """B^T d B of the tiles (n, rows, columns) of x (N, H, W, C): (a*a, T, C), in the second memory."""
        m, a, c, (top, left) = self.f.m, self.f.a, self.x.shape[3], self.pads
        n, rows, columns = tiles.shape
        padded = self.padded[:n, : rows * m + 2]
        first = tiles.rows.start * m - top  # the row of x that the block's first is: before x, or in it
        begin, end = max(0, -first), min(rows * m + 2, self.x.shape[1] - first)
        if begin:
            padded[:, :begin] = 0
        if end < rows * m + 2:
            padded[:, end:] = 0
        padded[:, begin:end, left : left + self.x.shape[2]] = self.x[tiles.images, first + begin : first + end]
        image, row, column, channel = padded.strides
        d = self.view(0, (a, a, n, rows, columns, c))
        np.copyto(d, np.ndarray(d.shape, d.dtype, padded, 0, (row, column, image, m * row, m * column, channel)))
        return self.mixed(self.f.matrices(d.dtype)[0], d, 1).reshape(a * a, -1, c)

    def mixed(self, matrix: Array, d: Array, where: int) -> Array:
        d2 = d.reshape(matrix.shape[1], -1)
        out = self.view(where, (len(matrix), d2.shape[1]))
        mix(matrix, d2, out)
        return out


def multiply(v: Array, u: Array, out: Array) -> None:
    """out (P, T, O) = v (P, T, C) @ u (P, C, O); with few channels, few tiles at a time, as they lie."""
    (p, t, c), o = v.shape, u.shape[2]
    if c * o <= SMALL_PRODUCT and t % ROWS == 0:
        np.matmul(v.reshape(p, -1, ROWS, c), u[:, None], out=out.reshape(p, -1, ROWS, o))
    else:
        np.matmul(v, u, out=out)


def convolve(f: Minimal, x: Array, u: Array, size: tuple[int, ...], pads: tuple[int, int], bias: Array | None) -> Array:
    """Cross-correlation of x (N, H, W, C) with transformed weights u (a*a, C, O): (N, *size, O)."""
    (_, c, o), m = u.shape, f.m
    y = empty((len(x), *size, o), x.dtype)
    blocks = cut(f, len(x), size, get_num_threads())
    most = max(b.shape for b in blocks)
    result = f.matrices(x.dtype)[2]

    def work(own: Iterator[Tiles]) -> None:
        scratch = Scratch(f, x, most, max(c, o), pads)
        for tiles in own:
            v = scratch.gathered(tiles)
            products = scratch.view(0, (f.a**2, v.shape[1], o))
            multiply(v, u, products)
            tile = scratch.mixed(result, products, 1).reshape(m, m, *tiles.shape, o)
            if bias is not None:
                tile += bias
            put(tile, y[tiles.images, tiles.rows.start * m : tiles.rows.stop * m])

    share(work, blocks)
    return y


def put(tile: Array, y: Array) -> None:
    """Results (m, m, n, rows, columns, O) to their places in y (n, H, W, O), without those that lie beyond it."""
    m, _, n, rows, columns, o = tile.shape
    if y.shape[1:3] == (rows * m, columns * m):
        np.copyto(y.reshape(n, rows, m, columns, m, o), tile.transpose(2, 3, 0, 4, 1, 5))
        return
    for i in range(m):
        for j in range(m):
            place = y[:, i::m, j::m]
            place[...] = tile[i, j, :, : place.shape[1], : place.shape[2]]


def grad_weight(f: Minimal, gy: Array, x: Array, pads: tuple[int, int]) -> Array:
    """The weights' gradient (3, 3, C, O): G^T (sum over tiles of (B^T d B) * (A gy A^T)) G."""
    (_, oh, ow, o), c, m = gy.shape, x.shape[3], f.m
    tiles_in_all = len(x) * -(-oh // m) * -(-ow // m)
    # Each thread sums over its own tiles, for all channels; or over all tiles, for its own channels of gy, where there
    # are more of these: then its sums are smaller than the tiles that others transform as well.
    by_channel = o > tiles_in_all
    channels = parts(o) if by_channel else [slice(0, o)]
    blocks = cut(f, len(x), (oh, ow), 1 if by_channel else get_num_threads())
    runs = [slice(0, len(blocks))] if by_channel else parts(len(blocks))
    most = max(b.shape for b in blocks)
    _, weights, result = f.matrices(x.dtype)
    sums = empty((len(runs), f.a**2, c, o), x.dtype)

    def work(own: Iterator[tuple[int, slice]]) -> None:
        scratch = Scratch(f, x, most, max(c, o), pads)
        for run, channel in own:
            total = sums[run, :, :, channel]
            for tiles in blocks[runs[run]]:
                v = scratch.gathered(tiles)
                part = gy[tiles.images, tiles.rows.start * m : tiles.rows.stop * m, :, channel]
                tile = scratch.view(0, (m, m, *tiles.shape, part.shape[3]))
                take(tile, part)
                products = scratch.mixed(result.T, tile, 2).reshape(f.a**2, v.shape[1], -1)
                if tiles is blocks[runs[run]][0]:
                    np.matmul(v.swapaxes(1, 2), products, out=total)
                else:
                    total += np.matmul(v.swapaxes(1, 2), products)

    share(work, [(run, channel) for run in range(len(runs)) for channel in channels])
    return mix_shared(np.tile(weights.T, len(runs)), sums.reshape(len(runs) * f.a**2, -1), (3, 3, c, o))


def take(tile: Array, y: Array) -> None:
    """The adjoint of `put`: tile (m, m, n, rows, columns, O) from y (n, H, W, O), 0 beyond it."""
    m, _, n, rows, columns, o = tile.shape
    if y.shape[1:3] == (rows * m, columns * m):
        np.copyto(tile, y.reshape(n, rows, m, columns, m, o).transpose(2, 4, 0, 1, 3, 5))
        return
    tile[...] = 0
    for i in range(m):
        for j in range(m):
            place = y[:, i::m, j::m]
            tile[i, j, :, : place.shape[1], : place.shape[2]] = place


def turned(w: Array) -> Array:
    """The weights (3, 3, O, C) of the convolution that takes gy to gx: w (3, 3, C, O), rotated by half a turn."""
    out = empty((3, 3, w.shape[3], w.shape[2]), w.dtype)

    def work(places: Iterator[tuple[int, int]]) -> None:
        for i, j in places:
            out[i, j] = w[2 - i, 2 - j].T

    share(work, [(i, j) for i in range(3) for j in range(3)])
    return out


ON_CPU = Accepts("cpu")


def suits(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """3x3 weights, stride 1, no dilation, one group, pads of at most 2, and nothing empty"""
    simple = geometry == ConvGeometry(padding=geometry.padding) and max(geometry.padding) <= 2
    return simple and w_shape[:2] == (3, 3) and not is_empty(x_shape, w_shape, geometry)


def seconds(f: Minimal, x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> float:
    """The products by the weights and by the small matrices, the copies, and the weights, made once and read once."""
    size, (c, o), places = geometry.output_size(x_shape[1:3], (3, 3)), w_shape[2:], f.a**2
    tiles = x_shape[0] * -(-size[0] // f.m) * -(-size[1] // f.m)
    products = tiles * places * (c * o + c * places + o * f.m**2)
    copies = tiles * (places * (c + o) + f.m**2 * o)
    return products / PRODUCT + copies / COPY + places * c * o / STREAM


cost2, cost4 = functools.partial(seconds, F2), functools.partial(seconds, F4)


def _forward(f: Minimal, x: Array, w: Array, geometry: ConvGeometry, bias: Array | None) -> Array:
    u = kept(w, f.m, lambda: transformed(f, w))
    return convolve(f, x, u, geometry.output_size(x.shape[1:3], (3, 3)), geometry.padding[::2], bias)


def _adjoint(
    f: Minimal, gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None
) -> Array:
    top, _, left, _ = geometry.padding
    return convolve(f, gy, transformed(f, turned(w)), shape[1:3], (2 - top, 2 - left), bias)


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits), cost=conv2d_asks(cost2))
def conv2d_winograd2(x: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """F(2x2, 3x3): 4 products a result instead of 9."""
    return _forward(F2, x, w, geometry, bias)


@variant(conv2d, ON_CPU, suits=conv2d_asks(suits), cost=conv2d_asks(cost4), precision="fast")
def conv2d_winograd4(x: Array, w: Array, geometry: ConvGeometry, bias: Array | None = None) -> Array:
    """F(4x4, 3x3): 2.25 products a result; about ten times the rounding error."""
    return _forward(F4, x, w, geometry, bias)


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
