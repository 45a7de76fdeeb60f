"""ReLU and its gradient in blocks, on threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...device import Array
from ...memory import empty_like
from ..dispatch import Accepts, variant
from ..portable.activation import relu, relu_grad
from .blocks import flat_blocks, large, run, select

ON_CPU = Accepts("cpu")


@variant(relu, ON_CPU, suits=large)
def relu_blocked(x: Array) -> Array:
    """Block by block, into memory that was used before."""
    y = empty_like(x)

    def work(blocks: Iterator[tuple[Array, Array]]) -> None:
        for part, out in blocks:
            np.maximum(part, 0, out=out)

    run(work, flat_blocks(x, y))
    return y


@variant(relu_grad, ON_CPU)
def relu_grad_blocked(gy: Array, y: Array) -> Array:
    """By masks of bits; see `blocks.select`."""
    gx = empty_like(gy)

    def work(blocks: Iterator[tuple[Array, Array, Array]]) -> None:
        for part, signs, out in blocks:
            let_through(part, signs, out)

    run(work, flat_blocks(gy, y, gx))
    return gx


def let_through(gy: Array, y: Array, out: Array) -> None:
    """relu_grad of a block."""
    select(gy, y <= 0, out)
