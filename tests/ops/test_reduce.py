"""Reductions: ties, exact sums of many terms, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, RangeError, ShapeError

NAN = float("nan")


def gradient(fn: Any, x: Any) -> Any:
    """The gradient of the sum of fn(x)."""
    tensor = Tensor(np.array(x), requires_grad=True)
    y = fn(tensor)
    y.backward(np.ones(y.shape))
    return tensor.grad.tolist()


def test_equal_largest_share_the_gradient() -> None:
    assert gradient(ops.max, [[1.0, 3.0], [3.0, 2.0]]) == [[0, 0.5], [0.5, 0]]


def test_along_a_dimension_the_first_of_equals_takes_all() -> None:
    x = [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]
    assert gradient(lambda t: ops.max(t, 1).values, x) == [[0, 1, 0], [1, 0, 0]]
    assert ops.max(Tensor(x), 1).indices.tolist() == ops.argmax(Tensor(x), 1).tolist() == [1, 0]


def test_nan_counts_as_largest() -> None:
    x = Tensor([[1.0, NAN, 3.0], [4.0, 5.0, NAN]])
    assert np.isnan(ops.max(x).item())
    np.testing.assert_array_equal(ops.max(x, 1).values.data, np.float32([NAN, NAN]))
    assert ops.max(x, 1).indices.tolist() == ops.argmax(x, 1).tolist() == [1, 2]


def test_argmax() -> None:
    x = Tensor(np.array([[1.0, 5.0], [7.0, 2.0]]))
    assert (ops.argmax(x).item(), ops.argmax(x, 0).tolist(), ops.argmax(x, -1).tolist()) == (2, [1, 0], [1, 0])
    assert ops.argmax(x, 1, keepdim=True).shape == (2, 1)
    assert ops.argmax(x).dtype == np.int64


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_a_million_terms(rng: np.random.Generator, name: str, dim: int | None) -> None:
    x = rng.random((131072, 64), dtype=np.float32)
    want = getattr(np, name)(x, axis=dim, dtype=np.float64)
    got = getattr(ops, name)(Tensor(x), dim)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.data, want, rtol=5e-7)


def test_gradient_of_a_repeated_row_is_exact_over_many_rows(rng: np.random.Generator) -> None:
    gy = rng.random((131072, 64), dtype=np.float32)
    row = Tensor(np.zeros(64, dtype=np.float32), requires_grad=True)
    (Tensor(np.zeros_like(gy)) + row).backward(gy)
    np.testing.assert_allclose(row.grad.data, gy.sum(0, dtype=np.float64), rtol=5e-7)


def test_sums_of_integers_and_of_nothing() -> None:
    assert ops.sum(Tensor(np.full(3, 200, dtype=np.uint8))).item() == 600
    assert ops.sum(Tensor(np.array([True, True]))).dtype == np.int64
    assert ops.sum(Tensor(np.zeros((0, 3)))).item() == 0
    assert np.isnan(ops.mean(Tensor(np.zeros((0, 3)))).item())
    assert np.isnan(ops.mean(Tensor(np.zeros((0, 3))), 0).data).all()


X = Tensor(np.ones((2, 3)))
REFUSED = {
    "dimension": (lambda: ops.sum(X, 2), RangeError, r"sum: dimension 2 is out of range for a tensor of 2 dim"),
    "negative": (lambda: ops.mean(X, -3), RangeError, r"mean: dimension -3 is out of range"),
    "max": (lambda: ops.max(X, 5), RangeError, r"max: dimension 5 is out of range"),
    "argmax": (lambda: ops.argmax(X, 5), RangeError, r"argmax: dimension 5 is out of range"),
    "twice": (lambda: ops.sum(X, (1, -1)), ArgumentError, r"sum: a dimension stands twice in \(1, -1\)"),
    "integers": (lambda: ops.mean(Tensor([1, 2])), DTypeError, r"mean: takes floats, not int64.*\.to\('float32'\)"),
    "empty": (lambda: ops.max(X[:0]), ShapeError, r"max: the input of shape \(0, 3\) has no elements"),
    "empty-dim": (lambda: ops.max(X[:0], 0), ShapeError, r"max: the input of shape \(0, 3\) has no elements"),
    "empty-argmax": (lambda: ops.argmax(X[:0]), ShapeError, r"argmax: the input of shape \(0, 3\) has no elements"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
