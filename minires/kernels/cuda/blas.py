"""Matrix products by cuBLAS, in strict float32 or in TF32, which rounds its operands to 10 bits behind the point."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ...device import Array

_factors = np.array([0, 1], np.float32)  # cuBLAS reads alpha and beta from the host's memory
_zero, _one = (_factors[i:].ctypes.data for i in range(2))
_FLOAT32 = 0  # CUDA_R_32F


@functools.cache
def _cublas() -> tuple[Any, Any]:
    """cuBLAS, and where its handle for the current stream comes from."""
    import cupy
    from cupy_backends.cuda.libs import cublas

    return cublas, cupy.cuda.device.get_cublas_handle


def gemm(
    a: Array,
    b: Array,
    out: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    add: bool = False,
    tf32: bool = False,
) -> None:
    """out (M, N) = a (M, K) @ b (K, N), or with `add` out += that; all C-contiguous float32.

    cuBLAS stores columns together: it computes the transposed product out.T = b.T @ a.T of the same memory.
    """
    cublas, handle = _cublas()
    (m, n), k = out.shape, a.shape[0 if transpose_a else 1]
    operation = cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_T
    compute = cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 else cublas.CUBLAS_COMPUTE_32F
    cublas.gemmEx(
        handle(), operation[transpose_b], operation[transpose_a], n, m, k,
        _one, b.data.ptr, _FLOAT32, b.shape[1], a.data.ptr, _FLOAT32, a.shape[1],
        _one if add else _zero, out.data.ptr, _FLOAT32, n, compute, cublas.CUBLAS_GEMM_DEFAULT,
    )  # fmt: skip
