"""ReLU and its gradient in blocks, on threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...device import Array
from ...memory import empty_like
from ..dispatch import Accepts, variant
from ..portable.activation import relu, relu_grad
from .blocks import Rows, pieces, run

ON_CPU = Accepts("cpu")


@variant(relu, ON_CPU)
def relu_blocked(x: Array) -> Array:
    """Compared with a row of zeros: with a single one NumPy is half as fast."""
    y = empty_like(x)
    flat, out = x.reshape(-1, 1), y.reshape(-1, 1)
    rows = Rows(flat)
    (zeros,) = rows.wide(0)

    def work(blocks: Iterator[tuple[Array, Array]]) -> None:
        for part, result in blocks:
            np.maximum(part, zeros[: part.shape[1]], out=result)

    run(work, zip(rows.cut(flat), rows.cut(out), strict=True))
    return y


@variant(relu_grad, ON_CPU)
def relu_grad_blocked(gy: Array, y: Array) -> Array:
    """By masks of bits; see `let_through`."""
    gx = empty_like(gy)
    flat = gy.reshape(-1), y.reshape(-1), gx.reshape(-1)

    def work(blocks: Iterator[slice]) -> None:
        for block in blocks:
            let_through(*(a[block] for a in flat))

    run(work, pieces(gy.size, gy.itemsize))
    return gx


def let_through(gy: Array, y: Array, out: Array) -> None:
    """out = gy, but 0 where y <= 0. All are contiguous.

    NumPy selects element by element, at a tenth of the speed of arithmetic, and a product with 0 would keep NaN.
    So the comparison becomes integers, 0 or -1, as wide as a number: their bits let all of gy's bits through, or none.
    """
    integers = np.dtype(f"i{out.itemsize}")
    through = np.subtract((y <= 0).view(np.int8), 1)
    bits = out.view(integers)
    bits[...] = through
    bits &= gy.view(integers)
