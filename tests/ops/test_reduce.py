"""Reductions: ties, extremes, exact sums of many terms, integers, nothing to reduce, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, RangeError, ShapeError
from tests.oracle import torch

NAN, INF = float("nan"), float("inf")


def gradient(fn: Any, x: Any) -> Any:
    """The gradient of the sum of fn(x)."""
    tensor = Tensor(np.array(x, dtype=np.float64), requires_grad=True)
    y = fn(tensor)
    y.backward(np.ones(y.shape))
    return tensor.grad.tolist()


def test_equal_largest_share_the_gradient() -> None:
    x = [[1.0, 3.0], [3.0, 2.0]]
    assert gradient(ops.max, x) == gradient(ops.amax, x) == [[0, 0.5], [0.5, 0]]
    assert gradient(lambda t: ops.amax(t, 0), x) == [[0, 1], [1, 0]]
    assert gradient(lambda t: ops.amax(t, (0, 1)), [[3.0, 3.0, 3.0, 3.0]]) == [[0.25] * 4]


def test_equal_smallest_share_the_gradient() -> None:
    x = [[1.0, 3.0], [1.0, 2.0]]
    assert gradient(ops.min, x) == gradient(ops.amin, x) == [[0.5, 0], [0.5, 0]]
    assert gradient(lambda t: ops.amin(t, 1), x) == [[1, 0], [1, 0]]


def test_along_a_dimension_the_first_of_equals_takes_all() -> None:
    x = [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]
    assert gradient(lambda t: ops.max(t, 1).values, x) == [[0, 1, 0], [1, 0, 0]]
    assert ops.max(Tensor(x), 1).indices.tolist() == ops.argmax(Tensor(x), 1).tolist() == [1, 0]
    x = [[3.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    assert gradient(lambda t: ops.min(t, 1).values, x) == [[0, 1, 0], [1, 0, 0]]
    assert ops.min(Tensor(x), 1).indices.tolist() == ops.argmin(Tensor(x), 1).tolist() == [1, 0]


def test_nan_counts_as_largest_and_as_smallest() -> None:
    x = Tensor([[1.0, NAN, 3.0], [4.0, 5.0, NAN]])
    for all_of, along, place in ((ops.max, ops.max, ops.argmax), (ops.min, ops.min, ops.argmin)):
        assert np.isnan(all_of(x).item())
        np.testing.assert_array_equal(along(x, 1).values.data, np.float32([NAN, NAN]))
        assert along(x, 1).indices.tolist() == place(x, 1).tolist() == [1, 2]
    np.testing.assert_array_equal(ops.amax(x, 0).data, np.float32([4, NAN, NAN]))
    np.testing.assert_array_equal(ops.amin(x, 0).data, np.float32([1, NAN, NAN]))
    assert gradient(ops.max, [NAN, 1.0, NAN]) == gradient(ops.min, [NAN, 1.0, NAN]) == [0.5, 0, 0.5]


def test_a_dimension_may_be_numpys() -> None:
    """An element of an array, or of what np.argsort returned; and an empty list is (): all."""
    x = Tensor(np.arange(6.0).reshape(2, 3))
    for reduce in (ops.sum, ops.mean, ops.var, ops.std, ops.amax, ops.amin, ops.logsumexp, ops.argmax, ops.argmin):
        np.testing.assert_array_equal(reduce(x, np.int64(1)).data, reduce(x, 1).data)
    assert ops.max(x, np.int64(0)).values.tolist() == [3, 4, 5]
    assert ops.sum(x, []).item() == ops.sum(x, ()).item() == 15


def test_places() -> None:
    x = Tensor(np.array([[1.0, 5.0], [7.0, 2.0]]))
    assert (ops.argmax(x).item(), ops.argmax(x, 0).tolist(), ops.argmax(x, -1).tolist()) == (2, [1, 0], [1, 0])
    assert (ops.argmin(x).item(), ops.argmin(x, 0).tolist(), ops.argmin(x, -1).tolist()) == (0, [0, 1], [0, 1])
    for place in (ops.argmax, ops.argmin):
        assert place(x, 1, keepdim=True).shape == (2, 1)
        assert place(x, keepdim=True).shape == (1, 1)
        assert place(x).dtype == np.int64


def test_the_larger_or_smaller_of_two() -> None:
    x, y = Tensor([1.0, 5.0]), Tensor([3.0, 2.0])
    assert ops.max(x, y).tolist() == [3, 5]
    assert ops.min(x, y).tolist() == [1, 2]


# Points at which a formula written down as it is on paper would fail; PyTorch's value and gradient are the rule.
EXTREMES = {
    "std of equals": (lambda m, x: m.std(x), [3, 3, 3]),
    "std of equal rows": (lambda m, x: m.std(x, 1, correction=0), [[1, 1], [1, 3]]),
    "var of equals": (lambda m, x: m.var(x), [2, 2, 2, 2]),
    "var of one": (lambda m, x: m.var(x), [2]),
    "std of one": (lambda m, x: m.std(x), [2]),
    "var of one, biased": (lambda m, x: m.var(x, correction=0), [2]),
    "std of fewer than the correction": (lambda m, x: m.std(x, correction=3), [1, 2]),
    "var of nan": (lambda m, x: m.var(x, 1), [[1, NAN], [1, 2]]),
    "logsumexp of -inf": (lambda m, x: m.logsumexp(x, 0), [-INF, -INF]),
    "logsumexp of a -inf": (lambda m, x: m.logsumexp(x, 0), [-INF, 0, 1]),
    "logsumexp of an inf": (lambda m, x: m.logsumexp(x, 0), [INF, 0, 1]),
    "logsumexp of two inf": (lambda m, x: m.logsumexp(x, 0), [INF, 0, INF]),
    "logsumexp of both": (lambda m, x: m.logsumexp(x, 0), [INF, -INF, 0]),
    "logsumexp of nan": (lambda m, x: m.logsumexp(x, 0), [NAN, 0]),
    "amax of infinities": (lambda m, x: m.amax(x, 0), [INF, INF, 0]),
    "amin of infinities": (lambda m, x: m.amin(x, 0), [-INF, -INF, 0]),
}


@pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0")  # PyTorch's, for the variance of one
@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_are_pytorchs(name: str) -> None:
    function, points = EXTREMES[name]
    x, theirs = Tensor(points, dtype="float64", requires_grad=True), torch.tensor(points, dtype=torch.float64)
    y, their_y = function(ops, x), function(torch, theirs.requires_grad_())
    y.sum().backward()
    their_y.sum().backward()
    np.testing.assert_allclose(y.data, their_y.detach().numpy(), rtol=1e-14)
    np.testing.assert_allclose(x.grad.data, theirs.grad.numpy(), rtol=1e-14)


@pytest.mark.parametrize("correction", [2, 3])
def test_a_variance_of_too_few_is_infinite(correction: int) -> None:
    """Also where K - correction is below 0: no variance is."""
    assert ops.var(Tensor([1.0, 2.0]), correction=correction).item() == INF
    assert gradient(lambda t: ops.var(t, correction=correction), [1, 2]) == [-INF, INF]


@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std"])
def test_a_million_terms(rng: np.random.Generator, name: str, dim: int | None) -> None:
    x = rng.random((131072, 64), dtype=np.float32)
    settings = {"ddof": 1} if name in ("var", "std") else {}
    want = getattr(np, name)(x.astype(np.float64), axis=dim, **settings)
    got = getattr(ops, name)(Tensor(x), dim)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.data, want, rtol=5e-7)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "std"])
@pytest.mark.parametrize("dim", [None, 0])
def test_a_million_halves(rng: np.random.Generator, name: str, dim: int | None) -> None:
    """In float16 itself a sum of ones stops at 2,048, and a square overflows from 256 on."""
    x = (rng.random((500_000, 2)) * (0.1 if name == "sum" else 1) + (300 if name == "std" else 0)).astype(np.float16)
    exact = x.astype(np.float64)
    want = getattr(np, name)(exact, axis=dim, **({"ddof": 1} if name in ("var", "std") else {}))
    tensor = Tensor(x, requires_grad=True)
    got = getattr(ops, name)(tensor, dim)
    assert got.dtype == np.float16
    np.testing.assert_allclose(got.data.astype(np.float64), want, rtol=1e-3)
    got.backward(np.ones(got.shape, np.float16))
    assert np.isfinite(tensor.grad.data).all()


def test_the_mean_of_many_halves() -> None:
    """70,000 is above float16's largest number: neither the sum of ones nor the count may be rounded to it."""
    x = Tensor(np.ones(70_000, np.float16), requires_grad=True)
    y = x.mean()
    y.backward(np.float16(1024))
    assert (y.item(), x.grad.dtype) == (1, np.float16)
    np.testing.assert_allclose(x.grad.data.astype(np.float64), 1024 / 70_000, rtol=1e-3)


@pytest.mark.parametrize("ratio", [1, 1e3, 1e6])
@pytest.mark.parametrize("shape", [(60_000,), (20_000, 3)])
def test_variance_keeps_its_digits_far_from_zero(
    rng: np.random.Generator, ratio: float, shape: tuple[int, ...]
) -> None:
    """The mean square less the square of the mean is noise from 1e3 on, and in float32 a mean is off by 1/32 at 1e6."""
    x = (rng.standard_normal(shape) + ratio).astype(np.float32)
    d = x.astype(np.longdouble) - x.mean(0, dtype=np.longdouble)
    want, terms = np.square(d).sum(0) / (shape[0] - 1), shape[0] - 1
    for name, value, factor in (("var", want, 2 * d / terms), ("std", np.sqrt(want), d / (terms * np.sqrt(want)))):
        tensor = Tensor(x, requires_grad=True)
        y = getattr(ops, name)(tensor, 0)
        y.backward(np.ones(y.shape, np.float32))
        np.testing.assert_allclose(y.data, value.astype(np.float64), rtol=5e-7)
        np.testing.assert_allclose(tensor.grad.data, factor.astype(np.float64), rtol=5e-7, atol=5e-7 / terms)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, 3.3, 1e4])
def test_equal_elements_have_no_variance_at_all(dtype: Any, value: float) -> None:
    x = Tensor(np.full((1001, 3), value, dtype), requires_grad=True)
    for reduce in (ops.var, ops.std):
        for dim in (None, 0):
            y = reduce(x, dim)
            x.grad = None
            y.sum().backward()
            assert not y.data.any()
            assert not x.grad.data.any()


def test_what_is_large_need_not_overflow() -> None:
    """The variance of 300 +- 300 in float16 exceeds its 65,504; the deviation does not. exp(1000) exceeds float64's."""
    half = Tensor(np.array([0, 600], np.float16), requires_grad=True)
    y = ops.std(half)
    y.backward()
    np.testing.assert_allclose(y.item(), 300 * np.sqrt(2), rtol=1e-3)
    np.testing.assert_allclose(half.grad.data.astype(np.float64), [-(0.5**0.5), 0.5**0.5], rtol=1e-3)
    assert ops.logsumexp(Tensor([1000.0, 1000.0]), 0).item() == np.float32(1000 + np.log(2))
    assert gradient(lambda t: ops.logsumexp(t, 0), [1e4, 1e4, 0, -1e4]) == [0.5, 0.5, 0, 0]
    # a small one beside a large one is kept, where the sum of exponentials rounds it away
    assert ops.logsumexp(Tensor([0.0, -20.0]), 0).item() == np.float32(np.log1p(np.exp(-20.0)))


@pytest.mark.parametrize("scale", [1e30, 1e19, 1e-22, 1e-25])
@pytest.mark.parametrize("dim", [None, 0])
def test_a_deviation_may_be_as_large_or_small_as_float32(scale: float, dim: int | None) -> None:
    """Its square may not: it leaves float32 above 1e19, and loses digits below 1e-19."""
    x = np.array([[1, 2], [-1, 3], [0.5, 1]], np.float32) * np.float32(scale)
    tensor = Tensor(x, requires_grad=True)
    wide = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y, want = tensor.std(dim), wide.std(dim)
    y.sum().backward()
    want.sum().backward()
    np.testing.assert_allclose(y.data, want.detach().numpy(), rtol=5e-7)
    np.testing.assert_allclose(tensor.grad.data, wide.grad.numpy(), rtol=5e-7, atol=5e-7)


def test_gradient_of_a_repeated_row_is_exact_over_many_rows(rng: np.random.Generator) -> None:
    gy = rng.random((131072, 64), dtype=np.float32)
    row = Tensor(np.zeros(64, dtype=np.float32), requires_grad=True)
    (Tensor(np.zeros_like(gy)) + row).backward(gy)
    np.testing.assert_allclose(row.grad.data, gy.sum(0, dtype=np.float64), rtol=5e-7)


def test_integers() -> None:
    """Sums are int64, extremes keep the type, and logsumexp is float32; the others need a type that holds quotients."""
    x = np.array([[3, 200], [7, 200]], np.uint8)
    assert ops.sum(Tensor(x)).item() == 410
    assert ops.sum(Tensor(x), 1).dtype == ops.sum(Tensor(np.array([True, True]))).dtype == np.int64
    assert ops.amax(Tensor(x), 0).data.tolist() == [7, 200]
    assert ops.amin(Tensor(x)).item() == ops.min(Tensor(x)).item() == 3
    assert ops.max(Tensor(x), 1).indices.tolist() == [1, 1]
    kept = (ops.amax(Tensor(x)), ops.amin(Tensor(x), 0), ops.max(Tensor(x), 0).values, ops.min(Tensor(x), 0).values)
    assert {y.dtype for y in kept} == {np.dtype(np.uint8)}
    assert ops.argmin(Tensor(x.astype(np.int64)), 0).tolist() == [0, 0]
    y = ops.logsumexp(Tensor([1, 2]), 0)
    assert (y.dtype, y.item()) == (np.float32, pytest.approx(np.log(np.exp(1) + np.exp(2)), rel=1e-7))
    assert (ops.amax(Tensor([True, False])).item(), ops.amin(Tensor([True, False])).item()) == (True, False)


def test_reductions_of_nothing() -> None:
    nothing = Tensor(np.zeros((0, 3)))
    assert ops.sum(nothing).item() == 0
    assert ops.logsumexp(nothing, 0).tolist() == [-INF] * 3
    for reduce in (ops.mean, ops.var, ops.std):
        assert np.isnan(reduce(nothing).item())
        assert np.isnan(reduce(nothing, 0).data).all()
    for reduce in (ops.sum, ops.mean, ops.var, ops.std, ops.logsumexp, ops.amax, ops.amin, ops.argmax, ops.argmin):
        assert reduce(nothing, 1).shape == (0,)
    assert ops.max(nothing, 1).values.shape == ops.min(nothing, 1).indices.shape == (0,)


@pytest.mark.parametrize("dim", [0, -1])
def test_a_number_is_a_row_of_one(dim: int) -> None:
    for reduce in (ops.sum, ops.mean, ops.logsumexp, ops.amax, ops.amin, ops.std, ops.var):
        settings = {"correction": 0} if reduce in (ops.std, ops.var) else {}
        x = Tensor(np.array(2.0), requires_grad=True)
        y = reduce(x, dim, **settings)
        y.backward()
        assert (y.shape, y.item(), x.grad.item()) == ((), *((0, 0) if settings else (2, 1)))
    for best in (ops.max, ops.min):
        x = Tensor(np.array(2.0), requires_grad=True)
        values, indices = best(x, dim, keepdim=True)
        values.backward()
        assert (values.shape, values.item(), indices.shape, indices.item(), x.grad.item()) == ((), 2, (), 0, 1)
    assert ops.argmax(Tensor(2.0), dim).item() == ops.argmin(Tensor(2.0), dim, keepdim=True).item() == 0


X = Tensor(np.ones((2, 3)))
NONE_LEFT = r"the input of shape \(0, 3\) has no elements to take the "
REFUSED = {
    "dimension": (lambda: ops.sum(X, 2), RangeError, r"sum: dimension 2 is out of range for a tensor of 2 dim"),
    "negative": (lambda: ops.mean(X, -3), RangeError, r"mean: dimension -3 is out of range"),
    "var": (lambda: ops.var(X, 2), RangeError, r"var: dimension 2 is out of range"),
    "std": (lambda: ops.std(X, (0, 2)), RangeError, r"std: dimension 2 is out of range"),
    "logsumexp": (lambda: ops.logsumexp(X, 2), RangeError, r"logsumexp: dimension 2 is out of range"),
    "max": (lambda: ops.max(X, 5), RangeError, r"max: dimension 5 is out of range"),
    "min": (lambda: ops.min(X, 5), RangeError, r"min: dimension 5 is out of range"),
    "amax": (lambda: ops.amax(X, (0, 5)), RangeError, r"amax: dimension 5 is out of range"),
    "amin": (lambda: ops.amin(X, -3), RangeError, r"amin: dimension -3 is out of range"),
    "argmax": (lambda: ops.argmax(X, 5), RangeError, r"argmax: dimension 5 is out of range"),
    "argmin": (lambda: ops.argmin(X, 5), RangeError, r"argmin: dimension 5 is out of range"),
    "float": (lambda: ops.sum(X, 1.0), ArgumentError, r"sum: a dimension is an int, not 1\.0"),
    "text": (lambda: ops.mean(X, "ab"), ArgumentError, r"mean: a dimension is an int, not 'ab'"),
    "places": (lambda: ops.argmax(X, (0, 1)), ArgumentError, r"argmax: a dimension is an int, not \(0, 1\)"),
    "places-none": (lambda: ops.argmin(X, ()), ArgumentError, r"argmin: a dimension is an int, not \(\)"),
    "best": (lambda: ops.max(X, (0, 1)), ArgumentError, r"max: a dimension is an int, not \(0, 1\)"),
    "best-array": (lambda: ops.min(X, np.ones(3)), ArgumentError, r"min: a dimension is an int, not array"),
    "number": (lambda: ops.max(Tensor(1.0), 1), RangeError, r"max: dimension 1 is out of range for a tensor of 0"),
    "twice": (lambda: ops.sum(X, (1, -1)), ArgumentError, r"sum: a dimension stands twice in \(1, -1\)"),
    "twice-amax": (lambda: ops.amax(X, (0, 0)), ArgumentError, r"amax: a dimension stands twice"),
    "integers": (lambda: ops.mean(Tensor([1, 2])), DTypeError, r"mean: takes floats, not int64.*\.to\('float32'\)"),
    "integers-var": (lambda: ops.var(Tensor([1, 2])), DTypeError, r"var: takes floats, not int64"),
    "integers-std": (lambda: ops.std(Tensor([True])), DTypeError, r"std: takes floats, not bool"),
    "empty": (lambda: ops.max(X[:0]), ShapeError, rf"max: {NONE_LEFT}largest"),
    "empty-dim": (lambda: ops.max(X[:0], 0), ShapeError, rf"max: {NONE_LEFT}largest"),
    "empty-min": (lambda: ops.min(X[:0]), ShapeError, rf"min: {NONE_LEFT}smallest"),
    "empty-amax": (lambda: ops.amax(X[:0], 0), ShapeError, rf"amax: {NONE_LEFT}largest"),
    "empty-amin": (lambda: ops.amin(X[:0]), ShapeError, rf"amin: {NONE_LEFT}smallest"),
    "empty-argmax": (lambda: ops.argmax(X[:0]), ShapeError, rf"argmax: {NONE_LEFT}largest"),
    "empty-argmin": (lambda: ops.argmin(X[:0], 0), ShapeError, rf"argmin: {NONE_LEFT}smallest"),
    "unbiased-second": (lambda: ops.var(X, True), ArgumentError, r"var: a dimension is an int, not True"),
    "unbiased": (lambda: ops.var(X, 0, True), TypeError, r"positional argument"),  # an older PyTorch's third
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
