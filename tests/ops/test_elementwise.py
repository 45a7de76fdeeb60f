"""Elementwise ops: kinks and poles, dtypes, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, ShapeError
from tests.helpers import value_and_gradients

NAN, INF = float("nan"), float("inf")
INTEGERS = ["uint8", "int8", "int32", "int64"]


def test_abs_of_negative_zero_is_positive() -> None:
    assert not np.signbit(ops.abs(Tensor([-0.0])).item())
    assert abs(Tensor([-2.0])).item() == 2


def test_clip_has_two_names() -> None:
    x = Tensor([-2.0, 2.0])
    assert ops.clamp is ops.clip
    assert x.clip(0).tolist() == x.clamp(min=0).tolist() == x.clip(0, None).tolist() == [0, 2]
    assert x.clamp(max=np.float64(0.1)).dtype == np.float32


def test_clip_refuses_what_is_no_bound() -> None:
    with pytest.raises(ArgumentError, match=r"clip: needs a number for min, max or both, not None and None"):
        ops.clip([1.0])
    with pytest.raises(ArgumentError, match=r"clip: .*maximum and minimum take tensors"):
        ops.clip([1.0], Tensor([0.0]))


def test_where_picks_and_does_not_multiply() -> None:
    """What is not picked does not matter, though it be infinite; what came before it still does, as in PyTorch."""
    x = Tensor([0.0, 4.0], requires_grad=True)
    y = ops.where(x.detach() > 0, x.log(), 0)
    assert y.tolist() == [0, np.log(np.float32(4))]
    y.backward([1, 1])
    assert x.grad.tolist()[1] == 0.25
    assert np.isnan(x.grad.tolist()[0])  # 0 * inf in the logarithm: where(x > 0, x, 1).log() has none


def test_where_takes_numbers() -> None:
    condition = Tensor([True, False])
    for numbers, dtype in (((1, 2), "int64"), ((1, 2.5), "float32"), ((1.5, 2), "float32"), ((True, False), "bool")):
        y = ops.where(condition, *numbers)
        assert (y.tolist(), y.dtype) == (list(numbers), np.dtype(dtype))
    assert Tensor(np.ones(2)).where(condition, 0).tolist() == [1, 0]


def test_where_refuses() -> None:
    x = Tensor([1.0, 2.0])
    with pytest.raises(DTypeError, match=r"where: condition must hold booleans, not float32; .*condition != 0"):
        ops.where(x, x, x)
    with pytest.raises(ShapeError, match=r"where: shapes \(3,\) and \(2,\) and \(2,\) do not broadcast"):
        ops.where(Tensor([True] * 3), x, x)
    with pytest.raises(ShapeError, match=r"where: shapes \(3,\) and \(2,\) do not broadcast"):
        ops.where(Tensor([True] * 3), x, 1.0)


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


@pytest.mark.parametrize("op", [ops.add, ops.sub, ops.mul, ops.div, ops.pow, ops.maximum, ops.minimum])
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


def test_a_cast_to_no_float_leaves_the_graph() -> None:
    x = Tensor([1.5, 0.0], requires_grad=True)
    for dtype, want in (("int64", [1, 0]), ("bool", [True, False])):
        y = x.to(dtype)
        assert (y.tolist(), y.node, y.requires_grad) == (want, None, False)


def test_mixed_floats_widen() -> None:
    narrow, wide = Tensor(np.ones(2, np.float32), requires_grad=True), Tensor(np.ones(2), requires_grad=True)
    y = narrow + wide
    y.backward(np.ones(2))
    assert (y.dtype, narrow.grad.dtype, wide.grad.dtype) == (np.float64, np.float32, np.float64)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "maximum", "minimum"])
def test_shapes_that_do_not_broadcast_are_refused(name: str) -> None:
    with pytest.raises(ShapeError, match=rf"{name}: shapes \(2, 3\) and \(4,\) do not broadcast.*equal or 1"):
        getattr(ops, name)(Tensor(np.ones((2, 3))), Tensor(np.ones(4)))


@pytest.mark.parametrize("name", ["add", "mul", "maximum", "minimum", "exp", "log", "sqrt", "neg", "abs", "relu"])
def test_what_is_no_number_is_refused(name: str) -> None:
    arguments = [np.array(["a"])] * (2 if name in ("add", "mul", "maximum", "minimum") else 1)
    with pytest.raises(DTypeError, match="takes numbers, not"):
        getattr(ops, name)(*arguments)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_stay_integers(dtype: str) -> None:
    a, b = np.array([3, 5, 100], dtype), np.array([4, 5, 7], dtype)
    for y, want in (
        (ops.maximum(a, b), [4, 5, 100]),
        (ops.minimum(a, 5), [3, 5, 5]),
        (ops.where(a > 4, a, b), [4, 5, 100]),
        (ops.clip(a, 4, 6), [4, 5, 6]),
        (ops.abs(a), [3, 5, 100]),
        (ops.relu(a), [3, 5, 100]),
    ):
        assert (y.tolist(), y.dtype) == (want, np.dtype(dtype))
    y = ops.clip(a, 3.5)
    assert (y.tolist(), y.dtype) == ([3.5, 5, 100], np.float32)


@pytest.mark.parametrize("op", [ops.maximum, ops.minimum, ops.add, lambda x, v: ops.clip(x, 0, v)])
def test_a_number_that_the_integer_type_does_not_hold_is_refused(op: Any) -> None:
    with pytest.raises(DTypeError, match=r"uint8 does not hold 300; convert with .to\('int64'\)"):
        op(np.array([3], np.uint8), 300)
    assert op(np.array([3], np.int16), 300).dtype == np.int16


def test_booleans_have_no_sign() -> None:
    for op in (ops.abs, ops.neg):
        with pytest.raises(DTypeError, match=f"{op.__name__}: booleans have no sign"):
            op(Tensor([True]))


def test_booleans_have_no_powers() -> None:
    for exponent in (Tensor([True]), 2):  # NumPy makes int8 of them
        with pytest.raises(DTypeError, match="pow: booleans have no powers"):
            ops.pow(Tensor([True]), exponent)


def test_a_number_beside_booleans_is_an_int64() -> None:
    assert (Tensor([True]) + 2).dtype == np.int64
    with pytest.raises(DTypeError, match="add: int64 does not hold 100000"):
        Tensor([True]) + 10**20


def test_numbers_alone() -> None:
    for y, want, dtype in (
        (ops.div(3, 2), 1.5, "float32"),
        (ops.add(3, 2), 5, "int64"),
        (ops.add(3, 2.5), 5.5, "float32"),
    ):
        assert (y.item(), y.dtype) == (want, np.dtype(dtype))


def test_a_powers_gradient_does_not_overflow_on_its_way_in_float16() -> None:
    """a^(b-1) is 2.5e5, which float16 does not hold; b times it is 2.5e4, which it does."""
    a, b = np.array([1e-6], np.float16), np.array([0.1], np.float16)
    x = Tensor(a, requires_grad=True)
    (x ** Tensor(b)).backward(np.ones(1, np.float16))
    exponent = float(b[0])
    assert x.grad.item() == pytest.approx(exponent * float(a[0]) ** (exponent - 1), rel=2**-11)


def test_a_quotients_gradient_keeps_its_digits_in_float16() -> None:
    """Summed over both signs. From the rounded quotient, it would be off by 1.4e-3."""
    a, b = np.linspace(1, 2, 64).astype(np.float16), np.array([1.7], np.float16)
    gy = np.tile([1, -1], 32).astype(np.float16)
    x = Tensor(b, requires_grad=True)
    (Tensor(a) / x).backward(gy)
    want = -np.sum(gy.astype(np.float64) * a) / float(b[0]) ** 2
    assert abs(x.grad.item() - want) <= 2**-11 * abs(want)
