"""Elementwise ops: kinks and poles, dtypes, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, maximum, ops
from minires.errors import DTypeError, ShapeError

NAN, INF = float("nan"), float("inf")


def value_and_gradients(fn: Any, *values: Any) -> list[Any]:
    """The op's result and gradients, for an output gradient of ones, as lists."""
    tensors = [Tensor(np.array(v), requires_grad=True) for v in values]
    y = fn(*tensors)
    y.backward(np.ones(y.shape))
    return [y.tolist(), *(t.grad.tolist() for t in tensors)]


def test_relu_is_flat_at_zero() -> None:
    assert value_and_gradients(ops.relu, [-1.0, 0.0, -0.0, 1.0]) == [[0, 0, 0, 1], [0, 0, 0, 1]]


def test_relu_passes_nan_on() -> None:
    y, gx = value_and_gradients(ops.relu, [NAN, INF, -INF])
    np.testing.assert_array_equal(y, [NAN, INF, 0])
    assert gx[1:] == [1, 0]


def test_maximum_shares_ties() -> None:
    assert value_and_gradients(maximum, [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == [[3, 2, 3], [0, 0.5, 1], [1, 0.5, 0]]


def test_maximum_passes_nan_on() -> None:
    np.testing.assert_array_equal(maximum(Tensor([NAN, 1.0]), Tensor([1.0, NAN])).data, [NAN, NAN])


def test_sqrt_is_infinitely_steep_at_zero() -> None:
    assert value_and_gradients(ops.sqrt, [0.0, 4.0]) == [[0, 2], [INF, 0.25]]


def test_powers_at_zero() -> None:
    assert value_and_gradients(lambda x: x**2, [0.0, -3.0]) == [[0, 9], [0, -6]]
    assert value_and_gradients(lambda x: x**0, [0.0, 2.0]) == [[1, 1], [0, 0]]
    assert value_and_gradients(lambda x: x**1, [0.0, 2.0]) == [[0, 2], [1, 1]]
    assert value_and_gradients(lambda a, b: a**b, [0.0, 0.0], [2.0, 0.0])[2] == [0, 0]


def test_poles_give_infinities_without_a_warning() -> None:
    assert (Tensor([1.0, -1.0]) / Tensor([0.0, 0.0])).tolist() == [INF, -INF]
    assert ops.log(Tensor([0.0])).tolist() == [-INF]
    assert ops.exp(Tensor([1000.0])).tolist() == [INF]
    assert np.isnan(ops.log(Tensor([-1.0])).item())


@pytest.mark.parametrize("op", [ops.add, ops.sub, ops.mul, ops.div, ops.pow, ops.maximum])
def test_numbers_take_the_tensors_dtype(op: Any) -> None:
    for dtype in (np.float32, np.float64):
        x = Tensor(np.ones(2, dtype=dtype), requires_grad=True)
        for y in (op(x, 2), op(2.5, x)):
            assert y.dtype == dtype
            y.backward(np.ones(2, dtype=dtype))
        assert x.grad.dtype == dtype


def test_cast_brings_the_gradient_back_to_its_dtype() -> None:
    x = Tensor(np.array([1.0, 2.0], dtype=np.float32), requires_grad=True)
    y = x.to("float64") * Tensor(np.array([3.0, 4.0]))
    assert y.dtype == np.float64
    y.backward(np.ones(2))
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [3, 4]


def test_mixed_floats_widen() -> None:
    narrow, wide = Tensor(np.ones(2, np.float32), requires_grad=True), Tensor(np.ones(2), requires_grad=True)
    y = narrow + wide
    y.backward(np.ones(2))
    assert (y.dtype, narrow.grad.dtype, wide.grad.dtype) == (np.float64, np.float32, np.float64)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "maximum"])
def test_shapes_that_do_not_broadcast_are_refused(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name}: shapes \(2, 3\) and \(4,\) do not broadcast.*equal or 1"):
        getattr(ops, name)(Tensor(np.ones((2, 3))), Tensor(np.ones(4)))


@pytest.mark.parametrize("name", ["add", "mul", "maximum", "exp", "log", "sqrt", "neg", "relu"])
def test_what_is_no_number_is_refused(name: str) -> None:
    arguments = [np.array(["a"])] * (2 if name in ("add", "mul", "maximum") else 1)
    with pytest.raises(DTypeError, match="takes numbers, not"):
        getattr(ops, name)(*arguments)
