"""Blocks that stay in the cache from the first pass over them to the last, in the shapes in which NumPy is fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import share
from ..dispatch import quiet

T = TypeVar("T")

# A block, worked on in place, stays in a core's 2 MB while others stream past it. In smaller ones the threads meet at
# the interpreter's lock too often: who has to wait for it sleeps, and waking takes as long as several operations.
BLOCK_BYTES = 1 << 20
# Numbers in a wide row. NumPy's iterator has a buffer of 8192: where two rows or more fit into it, a vector that
# broadcasts over them is copied there again and again, at half the speed.
WIDTH = 8192


def pieces(count: int, nbytes: int) -> list[slice]:
    """range(count) in slices of about BLOCK_BYTES, for items of `nbytes`."""
    step = max(1, BLOCK_BYTES // max(1, nbytes))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def large(first: Array, *others: Any, **settings: Any) -> bool:
    """Arrays of more than one block."""
    return bool(first.nbytes > BLOCK_BYTES)


def flat_blocks(*arrays: Array | None) -> list[Any]:
    """The blocks of contiguous arrays of one shape, together, without dimensions; None stays None."""
    size, nbytes = next((a.size, a.itemsize) for a in arrays if a is not None)
    flat = [a if a is None else a.reshape(size) for a in arrays]
    return [tuple(a if a is None else a[piece] for a in flat) for piece in pieces(size, nbytes)]


def run(work: Callable[[Iterator[T]], None], blocks: Iterable[T]) -> None:
    """`threads.share`, with overflow and NaN as results, not warnings. A single block is not worth its preparations."""
    blocks = list(blocks)
    with quiet():
        if len(blocks) == 1:
            work(iter(blocks))
        else:
            share(work, blocks)


class Rows:
    """How arrays (M, C) are cut into blocks of few wide rows: rows of the array side by side, as many as fill WIDTH.

    Vectors (C,) become as wide. A loop over 64 numbers costs NumPy more than their arithmetic; over 8192 it costs
    nothing. The cuts depend on the shape alone, and so do sums: not on the number of threads.
    """

    def __init__(self, x: Array) -> None:
        rows, self.columns = x.shape
        self.side = max(1, min(rows, -(-WIDTH // max(1, self.columns))))  # rows side by side
        self.whole = rows // self.side  # wide rows that are full
        self.pieces = pieces(self.whole, self.side * x[:1].nbytes)
        self.height = self.pieces[0].stop if self.pieces else 1
        self.dtype = x.dtype

    def cut(self, x: Array) -> list[Array]:
        """An array's blocks. Rows that fill no wide one are a block of their own: one row that is less wide."""
        split = self.whole * self.side
        wide, rest = x[:split].reshape(self.whole, self.side * self.columns), x[split:]
        blocks = [wide[piece] for piece in self.pieces]
        return [*blocks, rest.reshape(1, rest.size)] if len(rest) else blocks

    def scratch(self) -> Array:
        """Memory for one block after the other, of which a less wide one takes its part."""
        return empty((self.height, self.side * self.columns), self.dtype)

    def wide(self, *vectors: Array | float) -> Array:
        """Vectors (C,), or numbers, as wide rows of an array. A less wide block takes the beginnings of these."""
        rows = np.empty((len(vectors), self.side, self.columns), self.dtype)
        for row, vector in zip(rows, vectors, strict=True):
            row[...] = vector
        return rows.reshape(len(vectors), self.side * self.columns)

    def fold(self, sums: Array) -> Array:
        """Sums down a block's wide rows, (k, width) in the array's own type, as sums of its rows: (k, C) in float64."""
        side = sums.shape[1] // max(1, self.columns)
        return sums.reshape(len(sums), side, self.columns).astype(np.float64).sum(axis=1)


def select(gy: Array, lost: Array, out: Array) -> None:
    """out = 0 where a boolean array is true, else gy.

    NumPy's own `where` goes element by element, at a tenth of the speed of arithmetic, and a product with 0 would keep
    NaN. Less 1, as integers, the booleans let none of gy's bits through, or all.
    """
    integers = np.dtype(f"i{out.itemsize}")
    np.bitwise_and(gy.view(integers), np.subtract(lost.view(np.int8), 1), out=out.view(integers))
