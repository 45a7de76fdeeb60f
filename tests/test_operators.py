"""Operators: which dtype results have, what stands on either side, comparisons, and writes in place."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor
from minires.errors import ArgumentError, DTypeError, ShapeError

ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow}
COMPARISONS = {f.__name__: f for f in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)}


def ones(dtype: str, shape: tuple[int, ...] = (2, 3)) -> Tensor:
    return Tensor(np.ones(shape, dtype))


PARTNERS = {
    "float": 0.1,
    "int": 2,
    "bool": True,
    "int tensor": Tensor([1, 2, 3]),
    "int array": np.array([1, 2, 3]),
    "uint8 array": np.ones(3, np.uint8),
    "0-d": Tensor(0.1),
    "0-d int": Tensor(2),
    "float32 scalar": np.float32(0.1),
    "float16 tensor": ones("float16"),
    "list": [0.1, 0.2, 0.3],
}


@pytest.mark.parametrize("op", [*ARITHMETIC.values(), minires.maximum])
@pytest.mark.parametrize("partner", PARTNERS)
def test_float32_stays_float32(op: Any, partner: str) -> None:
    """On either side, forwards and backwards."""
    for swapped in (False, True):
        x = ones("float32").requires_grad_()
        y = op(PARTNERS[partner], x) if swapped else op(x, PARTNERS[partner])
        y.sum().backward()
        assert y.dtype == x.grad.dtype == np.float32


@pytest.mark.parametrize("op", ARITHMETIC)
def test_float32_stays_float32_beside_numpys_python_float(op: str) -> None:
    assert ARITHMETIC[op](ones("float32"), np.sqrt(2)).dtype == np.float32


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ("float32", "float64", "float64"),
        ("float16", "float32", "float32"),
        ("int64", "float32", "float32"),
        ("int64", "float16", "float16"),
        ("uint8", "int64", "int64"),
        ("bool", "int64", "int64"),
        ("int64", 1.5, "float32"),
        ("int64", 2, "int64"),
        ("float16", 1.5, "float16"),
        ("float64", 1.5, "float64"),
    ],
)
@pytest.mark.parametrize("op", ["+", "*"])
def test_promotion(op: str, a: str, b: Any, result: str) -> None:
    """Floats win over integers, wide over narrow, tensors over Python numbers."""
    other = ones(b) if isinstance(b, str) else b
    assert ARITHMETIC[op](ones(a), other).dtype == ARITHMETIC[op](other, ones(a)).dtype == np.dtype(result)


@pytest.mark.parametrize("divisor", [2, np.array([1, 2, 4]), Tensor([1, 2, 4])])
def test_division_of_integers_is_float32(divisor: Any) -> None:
    y = Tensor([1, 2, 3]) / divisor
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.data, np.array([1, 2, 3]) / np.asarray(getattr(divisor, "data", divisor)))


@pytest.mark.parametrize("op", ARITHMETIC)
@pytest.mark.parametrize("kind", ["array", "tensor", "number"])
def test_operators_on_both_sides(op: str, kind: str, rng: np.random.Generator) -> None:
    a, b = rng.uniform(1, 2, (2, 3)), 3.0 if kind == "number" else rng.uniform(1, 2, 3)
    other = Tensor(b) if kind == "tensor" else b
    for result, expected in [
        (ARITHMETIC[op](Tensor(a), other), ARITHMETIC[op](a, b)),
        (ARITHMETIC[op](other, Tensor(a)), ARITHMETIC[op](b, a)),
    ]:
        assert type(result) is Tensor
        np.testing.assert_array_equal(result.data, expected)


def test_matmul_and_negation(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 3)), rng.standard_normal((3, 4))
    for product in (Tensor(a) @ b, a @ Tensor(b), Tensor(a).matmul(Tensor(b))):
        np.testing.assert_array_equal(product.data, a @ b)
    np.testing.assert_array_equal((-Tensor(a)).data, -a)
    np.testing.assert_array_equal(Tensor(a).T.data, a.T)


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("wrap", [Tensor, np.asarray, lambda b: 2.0])
def test_comparisons(name: str, wrap: Any) -> None:
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])
    compare = COMPARISONS[name]
    for result, expected in [
        (compare(Tensor(a), wrap(b)), compare(a, b)),
        (compare(wrap(b), Tensor(a)), compare(b, a)),
    ]:
        assert (type(result), result.dtype) == (Tensor, bool)
        np.testing.assert_array_equal(result.data, expected)


def test_tensors_are_hashed_by_identity() -> None:
    a, b = Tensor([1.0]), Tensor([1.0])
    assert len({a, b, a}) == 2


@pytest.mark.parametrize("shape", [(2,), (2, 2), (4, 2)])
def test_shapes_that_do_not_broadcast(shape: tuple[int, ...]) -> None:
    for op in ARITHMETIC.values():
        with pytest.raises(ShapeError, match=r"shapes \(2, 3\) and .* do not broadcast"):
            op(ones("float32"), ones("float32", shape))
    for name, compare in COMPARISONS.items():
        with pytest.raises(ShapeError, match=rf"{name}: .*could not be broadcast"):
            compare(ones("float32"), ones("float32", shape))


@pytest.mark.parametrize("write", ["__iadd__", "__isub__", "__imul__", "__itruediv__"])
@pytest.mark.parametrize("kind", ["number", "tensor", "array", "float64 array", "row"])
def test_operators_in_place(write: str, kind: str) -> None:
    """The array stays the same, and so does its dtype."""
    others = {"number": 2, "tensor": ones("float32") * 2, "array": np.full((2, 3), 2, np.float32)}
    others |= {"float64 array": np.full((2, 3), 2.0), "row": Tensor([2.0, 2.0, 2.0])}
    t = ones("float32")
    array = t.data
    assert getattr(t, write)(others[kind]) is t
    assert t.data is array
    assert t.dtype == np.float32
    np.testing.assert_array_equal(array, {"__iadd__": 3, "__isub__": -1, "__imul__": 2, "__itruediv__": 0.5}[write])


@pytest.mark.parametrize("other", [np.ones((4, 2, 3), np.float32), np.ones(2, np.float32)])
def test_in_place_does_not_grow(other: np.ndarray) -> None:
    t = ones("float32")
    with pytest.raises(ShapeError, match=r"\+="):
        t += other
    np.testing.assert_array_equal(t.data, 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: -Tensor([True]), DTypeError, "neg: booleans"),
        (lambda: Tensor([True]) - Tensor([False]), DTypeError, "sub: booleans"),
        (lambda: Tensor([2]) ** -1, ArgumentError, "pow: integers"),
        (lambda: Tensor([2]).__iadd__(1.5), DTypeError, r"\+=: .*int64"),
    ],
)
def test_what_a_dtype_cannot_do(call: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_tensor_without_dimensions_does_not_widen() -> None:
    """PyTorch's rule; between two such tensors the wider dtype wins."""
    number = Tensor(np.float64(2))
    assert (ones("float32") * number).dtype == np.float32
    assert (Tensor(np.float32(1)) * number).dtype == np.float64
    assert (Tensor([1]) * number).dtype == np.float64


def test_integers_leave_the_graph() -> None:
    y = Tensor([1.5, 2.5], requires_grad=True).to("int64")
    assert y.tolist() == [1, 2]
    assert y.node is None


def test_comparisons_with_numbers_and_with_nothing() -> None:
    t = Tensor([0.1])
    assert (t == np.float64(0.1)).tolist() == [True]
    assert (t == None) is False  # noqa: E711
    assert (t != None) is True  # noqa: E711


def test_max_of_two_and_sum_over_no_dimension() -> None:
    a, b = Tensor([1.0, 5.0]), Tensor([2.0, 3.0])
    assert minires.max(a, b).tolist() == [2, 5]
    assert a.sum(()).item() == 6
    assert a[a.argmax()].item() == 5


def test_division_in_place_by_zero_is_no_warning() -> None:
    t = Tensor([1.0])
    t /= 0
    assert t.tolist() == [np.inf]
