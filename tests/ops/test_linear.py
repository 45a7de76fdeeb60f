"""Matrix products: exact bias gradients, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import DTypeError, MiniresError, ShapeError


def test_bias_gradient_is_exact_over_many_rows(rng: np.random.Generator) -> None:
    gy = rng.random((131072, 16), dtype=np.float32)
    b = Tensor(np.zeros(16, dtype=np.float32), requires_grad=True)
    ops.linear(np.zeros((131072, 1), np.float32), np.zeros((16, 1), np.float32), b).backward(gy)
    np.testing.assert_allclose(b.grad.data, gy.sum(0, dtype=np.float64), rtol=5e-7)


def test_linear_is_matmul_and_add(rng: np.random.Generator) -> None:
    x, w, b = (rng.standard_normal(s) for s in ((4, 3), (5, 3), (5,)))
    np.testing.assert_allclose(ops.linear(x, w, b).data, (Tensor(x) @ Tensor(w).T + Tensor(b)).data, rtol=1e-13)


def ones(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.ones(shape, dtype=dtype))


SHAPES = {
    "matmul": (lambda: ones(2, 3) @ ones(2, 3), r"matmul: shapes \(2, 3\) and \(2, 3\) do not fit.*last but one"),
    "matmul-vector": (lambda: ones(2, 3) @ ones(2), r"matmul: shapes \(2, 3\) and \(2,\) do not fit"),
    "matmul-batch": (lambda: ones(2, 3, 4) @ ones(3, 4, 5), r"matmul: .*leading axes do not broadcast"),
    "matmul-number": (lambda: ones(2, 3) @ Tensor(2.0), r"matmul: .* a number multiplies with \*"),
    "linear": (
        lambda: ops.linear(ones(2, 3), ones(5, 4)),
        r"linear: input \(2, 3\) and weight \(5, 4\) do not fit.*O, I",
    ),
    "linear-images": (lambda: ops.linear(ones(2, 4, 4, 3), ones(5, 48)), r"linear: .*flatten\(1\) or pooling first"),
    "linear-weight": (lambda: ops.linear(ones(2, 3), ones(3)), r"linear: .*weight is \(O, I\)"),
    "linear-bias": (
        lambda: ops.linear(ones(2, 3), ones(5, 3), ones(3)),
        r"linear: bias must be \(5,\) for weight \(5, 3\), but has shape \(3,\)",
    ),
}
DTYPES = {
    "linear-integers": (lambda: ops.linear(ones(2, 3, dtype=np.int64), ones(5, 3)), r"linear: input must be .* int64"),
    "linear-images": (lambda: ops.linear(ones(2, 3, dtype=np.uint8), ones(5, 3)), r"linear: .*uint8.*Normalize"),
    "linear-mixed": (
        lambda: ops.linear(ones(2, 3), ones(5, 3, dtype=np.float64)),
        r"linear: one dtype expected.*float64",
    ),
    "matmul-mixed": (lambda: ones(2, 3) @ ones(3, 2, dtype=np.float64), r"matmul: one dtype expected.*float64"),
}
REFUSED = [
    pytest.param(call, error, message, id=name)
    for error, table in ((ShapeError, SHAPES), (DTypeError, DTYPES))
    for name, (call, message) in table.items()
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_bad_input_is_refused(call: Any, error: type[MiniresError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
