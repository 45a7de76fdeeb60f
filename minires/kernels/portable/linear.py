"""Matrix products. Being kernels, they multiply and sum float16 operands in float32, and round the result once."""

from __future__ import annotations

import math

from ...device import Array
from ..dispatch import kernel
from .reduce import sum_to_shape


@kernel
def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """a (..., M, K) @ b (..., K, N) over broadcast leading axes, plus `bias` (N,)."""
    y = a @ b
    if bias is not None:
        y += bias
    return y


@kernel
def matmul_to_shape(a: Array, b: Array, shape: tuple[int, ...]) -> Array:
    """a @ b, summed over the leading axes along which an operand of `shape` was repeated: matmul's gradients."""
    if len(shape) == 2 < a.ndim and a.shape[:-2] == b.shape[:-2]:  # one long product is the sum of many short ones
        terms = math.prod(a.shape[:-2]) * a.shape[-1]
        return a.swapaxes(-1, -2).reshape(terms, a.shape[-2]).T @ b.reshape(terms, b.shape[-1])
    return sum_to_shape(a @ b, shape)
