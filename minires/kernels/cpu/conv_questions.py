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
FEW_IMAGES = 4
ALONE = 2e7  # multiplications that one thread has done before several have found together

Question = Callable[[tuple[int, ...], tuple[int, ...], ConvGeometry], Any]  # of x's shape, w's shape, geometry


def conv2d_asks(question: Question) -> Callable[..., Any]:
    def ask(x: Array, w: Array, geometry: ConvGeometry, *epilogue: Any, **named: Any) -> Any:
        return question(x.shape, w.shape, geometry)

    ask.__doc__ = question.__doc__
    return ask


def conv2d_costs(cost: Question, small: bool = False) -> Callable[..., float]:
    """A cost that counts in calls that are small (conv_small.py), or in those that are not; else it is infinite.

    The two do not mix: BLAS's threads spin on for milliseconds, and take a core from ours.
    """

    def ask(x: Array, w: Array, geometry: ConvGeometry, *epilogue: Any, **named: Any) -> float:
        counts = (is_fixed(w) and is_small(x.shape, w.shape, geometry)) == small
        return float(cost(x.shape, w.shape, geometry)) if counts else math.inf

    return ask


def is_small(x_shape: tuple[int, ...], w_shape: tuple[int, ...], geometry: ConvGeometry) -> bool:
    """Whether there are few images, and so little to multiply for each that threads of ours would meet too often."""
    products = windows(x_shape, w_shape, geometry) * math.prod(w_shape)
    return x_shape[0] <= FEW_IMAGES and products <= 2 * ALONE * x_shape[0]


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
