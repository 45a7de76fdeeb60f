"""What the dispatcher asks a variant of convolution: can it take these shapes, and about how long would it need?

The three kernels get different arrays, but each call tells the same: the shapes of x and of w, and the geometry. A
variant answers for all three at once, since the gradients take as many products as the convolution itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...device import Array
from ..kept import is_fixed
from ..portable.conv import ConvGeometry

# Rough speeds of a machine with two cores, a second. Only their ratios matter.
PRODUCT = 120e9  # multiplications with their additions, in large matrix products
COPY = 8e9  # numbers copied within the cache
STREAM = 3e9  # numbers written and read again beyond it
SHARED = 3e-4  # seconds that threads wait for each other and for the interpreter's lock, in one call of a variant
CALLS = 1e-4  # seconds that a variant takes however small the arrays; half of it where it is planned (plans.py)
ALONE = 2e7  # multiplications that one thread has done before several have found together

Question = Callable[[tuple[int, ...], tuple[int, ...], ConvGeometry], Any]  # of x's shape, w's shape, geometry


def conv2d_asks(question: Question) -> Callable[..., Any]:
    def ask(x: Array, w: Array, geometry: ConvGeometry, *epilogue: Any, **named: Any) -> Any:
        return question(x.shape, w.shape, geometry)

    ask.__doc__ = question.__doc__
    return ask


def fixed_weights_ask(cost: Question) -> Callable[..., float]:
    """A cost that counts where weights are fixed; elsewhere their preparation would not repay."""

    def ask(x: Array, w: Array, geometry: ConvGeometry, *epilogue: Any, **named: Any) -> float:
        return float(cost(x.shape, w.shape, geometry)) if is_fixed(w) else math.inf

    return ask


def grad_input_asks(question: Question) -> Callable[..., Any]:
    def ask(gy: Array, w: Array, shape: tuple[int, ...], geometry: ConvGeometry, bias: Array | None = None) -> Any:
        return question(shape, w.shape, geometry)

    ask.__doc__ = question.__doc__
    return ask


def grad_weight_asks(question: Question) -> Callable[..., Any]:
    def ask(gy: Array, x: Array, shape: tuple[int, ...], geometry: ConvGeometry) -> Any:
        return question(x.shape, shape, geometry)

    ask.__doc__ = question.__doc__
    return ask


def is_empty(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """Whether there is nothing to compute: such batches are left to the portable kernel."""
    return min(*x_shape, *w_shape, *geometry.output_size(x_shape[1:3], w_shape[:2])) < 1


def windows(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> int:
    """How many windows there are: N*OH*OW."""
    return x_shape[0] * math.prod(geometry.output_size(x_shape[1:3], w_shape[:2]))
