"""Matrix products on our own threads: BLAS's would go on spinning on the cores that the next kernel's blocks want."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...device import Array
from ...memory import empty
from ...threads import parts, share
from ..dispatch import Accepts, variant
from ..portable.linear import matmul, matmul_to_shape
from .conv_questions import ALONE

ON_CPU = Accepts("cpu", contiguous=False)
TINY = 1 << 18  # multiplications: OpenBLAS does as many on one thread anyway


def suits(a: Array, b: Array, bias: Array | None = None) -> bool:
    """two matrices"""
    return a.ndim == b.ndim == 2


def suits_to_shape(a: Array, b: Array, shape: tuple[int, ...]) -> bool:
    """two matrices, and no axis to sum over"""
    return a.ndim == b.ndim == 2 and shape == (a.shape[0], b.shape[1])


def product(a: Array, b: Array) -> Array:
    """a (M, K) @ b (K, N), each thread on its own rows of a."""
    if a.size * b.shape[1] < TINY:
        return a @ b
    y = empty((a.shape[0], b.shape[1]), a.dtype)

    def work(own: Iterator[slice]) -> None:
        for rows in own:
            np.matmul(a[rows], b, out=y[rows])

    share(work, [slice(0, len(a))] if a.size * b.shape[1] < ALONE else parts(len(a)))
    return y


@variant(matmul, ON_CPU, suits=suits)
def matmul_shared(a: Array, b: Array, bias: Array | None = None) -> Array:
    """Blocks of rows."""
    y = product(a, b)
    if bias is not None:
        y += bias
    return y


@variant(matmul_to_shape, ON_CPU, suits=suits_to_shape)
def matmul_to_shape_shared(a: Array, b: Array, shape: tuple[int, ...]) -> Array:
    """Blocks of rows."""
    return product(a, b)
