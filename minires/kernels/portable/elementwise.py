"""ReLU and its gradient."""

from __future__ import annotations

from ...device import Array, array_module
from ..dispatch import kernel


@kernel
def relu(x: Array) -> Array:
    """max(x, 0), element by element; NaN stays NaN."""
    return array_module(x).maximum(x, 0)


@kernel
def relu_grad(gy: Array, y: Array) -> Array:
    """gy where y = relu(x) let it through, else 0: the gradient at x = 0 is 0."""
    return array_module(gy).where(y <= 0, 0, gy)
