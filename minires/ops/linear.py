"""Matrix products and the linear layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..autograd import Function
from ..errors import ShapeError
from ..kernels import matmul as matmul_kernel
from ..kernels import matmul_to_shape, sum_axes
from .checks import as_tensor, check_float
from .shape import reshape


@dataclass(eq=False)
class MatMul(Function):
    """The matrix product, over broadcast leading axes.

    Shapes    a (..., M, K); b (..., K, N); y (..., M, N)
    Forward   y = a @ b
    Backward  ga = gy @ b^T;  gb = a^T @ gy, each summed over the axes along which it was repeated
    Saves     b if ga is needed, a if gb is
    Cost      2*M*K*N flops forward, twice that backward
    """

    def forward(self, a: Any, b: Any) -> Any:
        self.save(a if self.needs[1] else None, b if self.needs[0] else None)
        self.shapes = a.shape, b.shape
        return matmul_kernel(a, b)

    def backward(self, gy: Any) -> Any:
        a, b = self.saved
        ga = matmul_to_shape(gy, b.swapaxes(-1, -2), self.shapes[0]) if self.needs[0] else None
        gb = matmul_to_shape(a.swapaxes(-1, -2), gy, self.shapes[1]) if self.needs[1] else None
        return ga, gb


@dataclass(eq=False)
class Linear(Function):
    """An affine map of the last axis, with PyTorch's weight layout.

    Shapes    x (..., I); w (O, I); b (O,) or None; y (..., O).  x2, gy2: leading axes merged
    Forward   y = x @ w^T + b
    Backward  gx = gy @ w;  gw = gy2^T @ x2;  gb = sum of gy2's rows
    Saves     w if gx is needed, x if gw is
    Cost      2*N*I*O flops forward for N rows, twice that backward
    """

    def forward(self, x: Any, w: Any, b: Any) -> Any:
        self.save(x if self.needs[1] else None, w if self.needs[0] else None)
        return matmul_kernel(x, w.T, b)

    def backward(self, gy: Any) -> Any:
        x, w = self.saved
        rows = math.prod(gy.shape[:-1])
        gy2 = gy.reshape(rows, gy.shape[-1])
        gx = matmul_kernel(gy, w) if self.needs[0] else None
        gw = matmul_kernel(gy2.T, x.reshape(rows, x.shape[-1])) if self.needs[1] else None
        gb = sum_axes(gy2, (0,)) if self.needs[2] else None
        return gx, gw, gb


def matmul(input: Any, other: Any) -> Any:
    """input @ other; a 1-D operand is a row on the left, a column on the right, as in NumPy and PyTorch."""
    a, b = as_tensor(input), as_tensor(other)
    if a.dtype != b.dtype:
        check_float("matmul", input=a, other=b)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"matmul: shapes {a.shape} and {b.shape}; a number multiplies with *")
    row, column = a.ndim == 1, b.ndim == 1
    shapes = f"matmul: shapes {a.shape} and {b.shape} do not fit"
    if a.shape[-1] != b.shape[0 if column else -2]:
        raise ShapeError(f"{shapes}: the first's last axis must be as long as the second's last but one")
    a, b = reshape(a, 1, -1) if row else a, reshape(b, -1, 1) if column else b
    if a.ndim > 2 and b.ndim > 2:
        for m, n in zip(a.shape[-3::-1], b.shape[-3::-1], strict=False):
            if m != n and 1 not in (m, n):
                raise ShapeError(f"{shapes}: their leading axes do not broadcast")
    y = MatMul()(a, b)
    shape = y.shape[:-2] + (() if row else y.shape[-2:-1]) + (() if column else y.shape[-1:])
    return reshape(y, shape) if row or column else y


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """input (..., I) @ weight (O, I)^T + bias (O,): (..., O). Raises ShapeError, DTypeError."""
    input, weight = as_tensor(input), as_tensor(weight)
    bias = None if bias is None else as_tensor(bias)
    check_float("linear", input=input, weight=weight, bias=bias)
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: input {input.shape} and weight {weight.shape} do not fit: weight is (O, I), and input's "
            "last axis must be I; images need flatten(1) or pooling first"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"linear: bias must be {weight.shape[:1]} for weight {weight.shape}, but has shape {bias.shape}"
        )
    return Linear()(input, weight, bias)
