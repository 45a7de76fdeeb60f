"""Matrix products: exact sums, integers, nothing to multiply, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import DTypeError, MiniresError, ShapeError
from tests.oracle import torch


def test_bias_gradient_is_exact_over_many_rows(rng: np.random.Generator) -> None:
    gy = rng.random((131072, 16), dtype=np.float32)
    b = Tensor(np.zeros(16, dtype=np.float32), requires_grad=True)
    ops.linear(np.zeros((131072, 1), np.float32), np.zeros((16, 1), np.float32), b).backward(gy)
    np.testing.assert_allclose(b.grad.data, gy.sum(0, dtype=np.float64), rtol=5e-7)


def test_linear_is_matmul_and_add(rng: np.random.Generator) -> None:
    x, w, b = (rng.standard_normal(s) for s in ((4, 3), (5, 3), (5,)))
    np.testing.assert_allclose(ops.linear(x, w, b).data, (Tensor(x) @ Tensor(w).T + Tensor(b)).data, rtol=1e-13)


@pytest.mark.parametrize(
    "shapes", [((2, 0), (0, 3)), ((0, 2), (2, 3)), ((5, 0, 2), (2, 3)), ((2, 2, 0), (0,)), ((0,), (0,))]
)
def test_products_of_nothing(shapes: tuple[tuple[int, ...], ...]) -> None:
    """An empty sum is 0."""
    ours = [Tensor(np.ones(shape), requires_grad=True) for shape in shapes]
    theirs = [torch.ones(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    y, their_y = ops.matmul(*ours), torch.matmul(*theirs)
    y.sum().backward()
    their_y.sum().backward()
    for got, want in zip([y, *(t.grad for t in ours)], [their_y, *(t.grad for t in theirs)], strict=True):
        np.testing.assert_array_equal(got.data, want.detach().numpy())


def test_a_layer_without_inputs_gives_its_bias() -> None:
    w, b = (Tensor(np.ones(shape), requires_grad=True) for shape in ((3, 0), (3,)))
    y = ops.linear(np.ones((2, 0)), w, b)
    y.sum().backward()
    assert (y.tolist(), w.grad.shape, b.grad.tolist()) == ([[1] * 3] * 2, (3, 0), [2] * 3)


@pytest.mark.parametrize("op", [ops.matmul, ops.linear])
@pytest.mark.parametrize("which", [0, 1])
def test_only_what_a_gradient_asks_for_is_saved(op: Any, which: int) -> None:
    """A frozen layer's input is not kept, nor is the weight of one whose input needs no gradient."""
    inputs = [Tensor(np.ones((2, 2)), requires_grad=i == which) for i in range(2)]
    kept = op(*inputs).node.saved
    assert kept[which] is None
    assert np.shares_memory(kept[1 - which], inputs[1 - which].data)


def test_integers_multiply_and_carry_no_gradient() -> None:
    y = Tensor([[1, 2], [3, 4]]) @ Tensor([5, 6])
    assert (y.dtype, y.tolist(), y.requires_grad) == (np.int64, [17, 39], False)


def test_halves_are_summed_in_float32() -> None:
    """4,096 products of 1: in float16 their sum would stop at 2,048."""
    x, w, b = (Tensor(np.ones(shape, np.float16), requires_grad=True) for shape in ((4096, 1), (1, 1), (1,)))
    y = ops.linear(x.T, x.T, b)
    assert (y.dtype, y.item()) == (np.float16, 4096)  # 4,097 is none of float16's numbers
    ops.linear(x, w, b).backward(np.ones((4096, 1), np.float16))
    assert (w.grad.item(), b.grad.item()) == (4096, 4096)
    (x * w).sum().backward()
    (Tensor(np.ones((4096, 1, 1), np.float16)) @ w).sum().backward()
    assert w.grad.item() == 3 * 4096


def ones(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.ones(shape, dtype=dtype))


SHAPES = {
    "matmul": (lambda: ones(2, 3) @ ones(2, 3), r"matmul: shapes \(2, 3\) and \(2, 3\) do not fit.*last but one"),
    "matmul-vector": (lambda: ones(2, 3) @ ones(2), r"matmul: shapes \(2, 3\) and \(2,\) do not fit"),
    "matmul-batch": (lambda: ones(2, 3, 4) @ ones(3, 4, 5), r"matmul: .*leading axes do not broadcast"),
    "matmul-none": (lambda: ones(0, 3, 4) @ ones(2, 4, 5), r"matmul: .*leading axes do not broadcast"),
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
    "matmul-integers": (
        lambda: ones(2, 3, dtype=np.int64) @ ones(3, 2),
        r"matmul: input must be .*int64.*to\('float32",
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
