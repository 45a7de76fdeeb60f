"""Tiles for Winograd's minimal filtering: the matrices of F(m x m, 3x3), and tiles of images laid out for products.

On matrices laid out as rows, X -> M^T X M is one product with kron(M, M)^T. So every step is a matrix product.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import get_num_threads, share

COLUMNS = 512  # OpenBLAS multiplies small matrices as they lie; larger ones it packs first, which these do not repay
ROWS, DEEP, WIDE = 64, 128, 64  # likewise: tiles, channels, and output channels of a panel
GAP = 80  # numbers between rows
TILES = 288  # of a sum: those of more round more than the exact promise allows, unless OpenBLAS cuts them itself


class Minimal:
    """F(m x m, 3x3) with polynomials evaluated at m + 1 points and infinity (Toom and Cook): A^T, G and B^T."""

    def __init__(self, m: int, points: tuple[float, ...]) -> None:
        self.m, self.a = m, m + 2
        self.ones = points.index(1) * (self.a + 1)  # A^T's column for the point 1 is all ones: the place in both axes
        last = [0.0] * (m - 1) + [1.0]  # infinity takes the highest power alone
        others = [[q for q in points if q != p] for p in points]
        scales = [math.prod(p - q for q in rest) for p, rest in zip(points, others, strict=True)]
        self.AT = np.array([*([p**k for k in range(m)] for p in points), last]).T
        self.G = np.array(
            [*([p**k / n for k in range(3)] for p, n in zip(points, scales, strict=True)), [0.0, 0.0, 1.0]]
        )
        self.BT = np.array([*([*np.poly(rest)[::-1], 0.0] for rest in others), np.poly(points)[::-1]])

    @functools.cache  # noqa: B019 (there are two of them, for good)
    def matrices(self, dtype: Any) -> tuple[Array, Array, Array]:
        """kron(B, B)^T (a*a, a*a), kron(G, G) (a*a, 9) and kron(A, A)^T (m*m, a*a), for tiles laid out as rows."""
        data, weights, result = (np.kron(matrix, matrix).astype(dtype) for matrix in (self.BT, self.G, self.AT))
        return data, weights, result


F2 = Minimal(2, (0, 1, -1))
F4 = Minimal(4, (0, 1, -1, 2, -1 / 2))  # half as much rounding error as 0, 1, -1, 2, -2 of Lavin and Gray


def spaced(shape: tuple[int, ...], leading: int, dtype: Any, memory: Array | None = None) -> Array:
    """An array, in `memory` if given, whose `leading` axes count rows, each contiguous, with a gap after it.

    Rows a power of two apart would all fall on the same few places of the processor's caches.
    """
    count, length = math.prod(shape[:leading]), math.prod(shape[leading:])
    flat = empty((count * (length + GAP),), dtype) if memory is None else memory[: count * (length + GAP)]
    return flat.reshape(count, length + GAP)[:, :length].reshape(shape)


Step = tuple[np.ufunc, Array, Array, Array]  # an operation, its arguments, and where the result goes


def run_all(steps: list[Step]) -> None:
    for operation, a, b, out in steps:
        operation(a, b, out=out)


def mixing(matrix: Array, x: Array, out: Array) -> list[Step]:
    """out (R, n) = matrix (R, S) @ x (S, n), a few columns at a time."""
    whole = x.shape[1] // COLUMNS * COLUMNS
    steps: list[Step] = []
    if whole:
        x_part, out_part = (v[:, :whole].reshape(len(v), -1, COLUMNS).swapaxes(0, 1) for v in (x, out))
        steps.append((np.matmul, matrix, x_part, out_part))
    if whole < x.shape[1]:
        steps.append((np.matmul, matrix, x[:, whole:], out[:, whole:]))
    return steps


def mix(matrix: Array, x: Array, out: Array) -> None:
    run_all(mixing(matrix, x, out))


def pieces(count: int, step: int) -> list[slice]:
    """range(count) in slices of `step`, the last of what is left."""
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def panels(w: Array, turn: bool) -> Array:
    """The weights (3, 3, C, O) in panels of a few output channels, (9, J, C, O/J), for products as they lie.

    With `turn` w is (3, 3, O, C), and rotated by half a turn: so laid out it takes gy to gx.
    """
    if turn:
        _, _, o, c = w.shape
        wide = panel_width(o)
        return w[::-1, ::-1].reshape(9, o // wide, wide, c).swapaxes(2, 3)
    _, _, c, o = w.shape
    wide = panel_width(o)
    return w.reshape(9, c, o // wide, wide).swapaxes(1, 2)


def panel_width(o: int) -> int:
    return WIDE if o % WIDE == 0 else o


def transformed(f: Minimal, w: Array, turn: bool) -> Array:
    """G g G^T for each pair of channels of the weights, in panels: (a*a, J, C, O/J)."""
    laid_out = panels(w, turn)
    g = empty(laid_out.shape, w.dtype)
    u = spaced((f.a**2, *g.shape[1:]), 1, w.dtype)

    def copy(places: Iterator[int]) -> None:
        for place in places:
            g[place] = laid_out[place]

    share(copy, range(9))
    mix_shared(f.matrices(w.dtype)[1], g.reshape(9, -1), u.reshape(f.a**2, -1))
    return u


def mix_shared(matrix: Array, x: Array, out: Array) -> None:
    """`mix`, by all threads."""

    def work(own: Iterator[slice]) -> None:
        for columns in own:
            mix(matrix, x[:, columns], out[:, columns])

    share(work, pieces(x.shape[1], 16 * COLUMNS))


class Tiles(NamedTuple):
    """A block of tiles: of these images, these rows of tiles; shape (images, rows, columns)."""

    images: slice
    rows: slice
    shape: tuple[int, int, int]


def cut(images: int, rows: int, columns: int, most: int) -> list[Tiles]:
    """Blocks of about `most` tiles: whole images, or some rows of one; at least one block for each thread."""
    most = max(1, min(most, -(-images * rows * columns // get_num_threads())))
    n, r = max(1, most // (rows * columns)), min(rows, max(1, most // columns))
    pairs = itertools.product(pieces(images, n), pieces(rows, r))
    return [Tiles(i, j, (i.stop - i.start, j.stop - j.start, columns)) for i, j in pairs]


class Scratch:
    """One thread's memory for a block of tiles. Each step reads one of the three memories and writes another."""

    def __init__(self, f: Minimal, x: Array, most: tuple[int, int, int], channels: int, pads: tuple[int, int]) -> None:
        self.f, self.x, self.pads = f, x, pads
        n, rows, columns = most
        self.padded = empty((n, rows * f.m + 2, columns * f.m + 2, x.shape[3]), x.dtype)
        self.padded[...] = 0
        self.memory = [empty((f.a**2 * (n * rows * columns * channels + GAP),), x.dtype) for _ in range(3)]

    def view(self, which: int, shape: tuple[int, ...], leading: int = 1) -> Array:
        return spaced(shape, leading, self.x.dtype, self.memory[which])

    def gathered(self, tiles: Tiles) -> Array:
        """The tiles d (a, a, n, rows, columns, C), which overlap, in the first memory."""
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
        d = self.view(0, (a, a, n, rows, columns, c), leading=2)
        np.copyto(d, np.ndarray(d.shape, d.dtype, padded, 0, (row, column, image, m * row, m * column, channel)))
        return d

    def mixed(self, matrix: Array, d: Array, where: int) -> Array:
        d2 = d.reshape(matrix.shape[1], -1)
        out = self.view(where, (len(matrix), d2.shape[1]))
        mix(matrix, d2, out)
        return out


def multiplying(v: Array, u: Array, out: Array, terms: Array) -> list[Step]:
    """out (P, T, O) = v (P, T, C) @ u, whose panels are (P, J, C, O/J); `terms` is scratch memory like out.

    By products of ROWS tiles, DEEP channels and one panel: the fastest there are, and sums of few terms round less.
    """
    (p, t, c), (_, j, _, wide) = v.shape, u.shape
    rows = ROWS if t % ROWS == 0 else t
    tiles = v.reshape(p, t // rows, 1, rows, c)
    steps: list[Step] = []
    for deep in pieces(c, DEEP):
        sums = terms if deep.start else out
        places = sums.reshape(p, t // rows, rows, j, wide).swapaxes(2, 3)
        steps.append((np.matmul, tiles[..., deep], u[:, None, :, deep], places))
        if deep.start:
            steps.append((np.add, out, terms, out))
    return steps


def multiply(v: Array, u: Array, out: Array) -> None:
    run_all(multiplying(v, u, out, spaced(out.shape, 1, out.dtype) if v.shape[2] > DEEP else out))


def multiply_transposed(v: Array, gradients: Array, out: Array, add: bool) -> None:
    """out (P, C, O) = v^T @ gradients, of (P, T, C) and (P, T, O), or with `add` += that; few tiles at a time."""
    for few in pieces(v.shape[1], TILES):
        factors = v[:, few].swapaxes(1, 2), gradients[:, few]
        if add or few.start:
            out += np.matmul(*factors, out=spaced(out.shape, 1, out.dtype))
        else:
            np.matmul(*factors, out=out)


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
