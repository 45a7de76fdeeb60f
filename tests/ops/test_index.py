"""Indexing: views and copies, repeated places, writes, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor
from minires.errors import ArgumentError, DTypeError, GraphError, RangeError, ShapeError

X = Tensor(np.arange(24.0).reshape(2, 3, 4))

# Each as NumPy takes it. A number beside an array counts as one, and a slice between two puts their axes first.
PLACES = {
    "list": [1, 0, 1],
    "nested": [[1, 0], [0, 0]],
    "empty": [],
    "tensor": Tensor([1, 0]),
    "unsigned": np.array([1, 0], np.uint8),
    "negative": (slice(None), [-1, 0]),
    "number-and-array": (0, slice(None), [1, 2]),
    "apart": ([0, 1], slice(None), [1, 2]),
    "dots": (..., [3, 3]),
    "dots-between": ([1, 1, 0], ..., [3, 3, 0]),
    "dots-and-all": (..., [2, 0, 2], slice(None)),
    "all-last": (slice(None), [2, 0, 2], slice(None)),
    "dots-last": ([1, 1], ...),
    "new-axis": ([1, 1], None, slice(0, 2)),
    "mask": np.arange(24).reshape(2, 3, 4) % 3 == 0,
    "mask-list": [True, False],
    "mask-tensor": Tensor(np.array([[True, False, True], [False, True, True]])),
    "mask-last": (..., np.array([True, False, True, True])),
    "mask-and-list": (slice(None), np.array([True, False, True]), [2, 2]),
    "mask-of-none": np.zeros((2, 3), bool),
    "tensor-number": (Tensor(1), Tensor([0, 0])),
}


def as_numpy(where: Any) -> Any:
    if isinstance(where, tuple):
        return tuple(map(as_numpy, where))
    return (
        where.data
        if isinstance(where, Tensor)
        else np.array(where, int)
        if isinstance(where, list) and not where
        else where
    )


@pytest.mark.parametrize("where", PLACES.values(), ids=PLACES)
def test_places_are_numpys(where: Any) -> None:
    """Values, a gradient that counts how often each element was taken, and assignment."""
    x = Tensor(X.data, requires_grad=True)
    y, want = x[where], X.data[as_numpy(where)]
    np.testing.assert_array_equal(y.data, want)
    assert not np.shares_memory(y.data, x.data)
    weights = np.random.default_rng(0).standard_normal(want.shape)
    y.backward(weights)
    counted = np.zeros(x.shape)
    np.add.at(counted, as_numpy(where), weights)
    np.testing.assert_allclose(x.grad.data, counted, rtol=1e-14, atol=1e-15)
    written, copy = Tensor(X.data.copy()), X.data.copy()
    written[where] = -1
    copy[as_numpy(where)] = -1
    np.testing.assert_array_equal(written.data, copy)
    assert written.version.count == 1


def test_without_arrays_the_result_is_a_view() -> None:
    for where in (0, slice(1, None), (..., 0), None, (0, 1, 2), np.int64(1), Tensor(1)):
        assert np.shares_memory(X[where].data, X.data)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_row_taken_many_times(dtype: Any) -> None:
    """70,000 terms are added exactly: in float16 they would stop at 2,048, one by one in float32 lose digits."""
    terms = np.random.default_rng(0).random((70_000, 2)).astype(dtype) / 2
    x = Tensor(np.zeros((3, 2), dtype), requires_grad=True)
    x[np.arange(70_000) % 2 * 2].backward(terms)
    want = np.stack([terms[0::2].sum(0, dtype=np.longdouble), [0, 0], terms[1::2].sum(0, dtype=np.longdouble)])
    rtol = {np.float16: 1e-3, np.float32: 5e-7, np.float64: 1e-14}[dtype]
    np.testing.assert_allclose(x.grad.data, want.astype(np.float64), rtol=rtol)


def test_the_order_of_places_does_not_change_a_bit(rng: np.random.Generator) -> None:
    """The terms of a place are added in their own order, whichever places stand between them."""
    gradients = []
    for others in (0, 1000):
        x = Tensor(np.zeros((2, 3)), requires_grad=True)
        places = np.concatenate([np.zeros(500, int), np.ones(others, int)])
        terms = np.random.default_rng(1).standard_normal((500, 3))
        at = np.sort(np.random.default_rng(2).permutation(500 + others)[:500])
        order = np.ones(500 + others, int)
        order[at] = 0
        gy = np.zeros((500 + others, 3))
        gy[at] = terms
        assert sorted(order) == sorted(places)
        x[order].backward(gy)
        gradients.append(x.grad.data[0])
    np.testing.assert_array_equal(*gradients)


def test_integers_are_taken_and_assigned() -> None:
    x = Tensor([1, 2, 3])
    assert x[[2, 0]].tolist() == [3, 1]
    assert x[[2, 0]].dtype == np.int64
    x[x > 1] = 0
    assert x.tolist() == [1, 0, 0]
    x[[0, 1]] = [7, 8]
    assert x.tolist() == [7, 8, 0]


def test_tensors_without_elements_or_dimensions() -> None:
    empty = Tensor(np.zeros((0, 3)), requires_grad=True)
    y = empty[[], [1, 2][:0]]
    y.sum().backward()
    assert (y.shape, empty.grad.shape) == ((0,), (0, 3))
    assert empty[:, [1, 1]].shape == (0, 2)
    assert Tensor(3.0)[...].item() == Tensor(3.0)[None, ...].item() == 3


def test_a_later_write_into_the_places_is_caught() -> None:
    x, places = Tensor([1.0, 2.0], requires_grad=True), Tensor([0, 1])
    y = x[places].sum()
    places += 1
    with pytest.raises(GraphError, match=r"Take\(place=\('array',\)\) saved was written in place"):
        y.backward()


def test_an_assignment_is_refused_while_recording() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(GraphError, match="item assignment writes in place"):
        x[[0]] = 1


def test_an_assignment_rounds_once_and_overflows_quietly() -> None:
    x = Tensor(np.zeros(3))
    x[:2] = [0.1, 1e300]
    assert x.tolist() == [0.1, 1e300, 0]
    for dtype, large in ((np.float16, 1e6), (np.float32, 1e300)):
        x = Tensor(np.zeros(2, dtype))
        x[0], x[1:] = large, np.array([-large])
        assert x.tolist() == [np.inf, -np.inf]


BYTES = Tensor(np.ones(3, np.uint8))
REFUSED = {
    "range": (lambda: X[2], RangeError, r"index: 2 does not fit shape \(2, 3, 4\)"),
    "many": (lambda: X[0, 0, 0, 0], RangeError, r"index: \(0, 0, 0, 0\) does not fit shape \(2, 3, 4\)"),
    "array-range": (lambda: X[[0, 2]], RangeError, r"index: \[0, 2\] does not fit shape \(2, 3, 4\): index 2 is out"),
    "array-negative": (lambda: X[:, [-4]], RangeError, r"index: .* does not fit shape \(2, 3, 4\): index -4 is out"),
    "arrays-differ": (lambda: X[[0, 1], [0, 1, 2]], RangeError, r"index: .* shapes \(2,\) \(3,\)"),
    "mask-size": (lambda: X[np.ones(3, bool)], RangeError, r"index: .* axis is 3"),
    "bool": (lambda: X[True], ArgumentError, r"index: index by integers, .* or booleans, not by bool"),
    "numpy-bool": (lambda: X[np.True_], ArgumentError, r"index: .* not by bool of shape \(\)"),
    "floats": (lambda: X[np.array([0.0])], ArgumentError, r"index: .* not by float64 of shape \(1,\)"),
    "list-of-floats": (lambda: X[[0.5]], ArgumentError, r"index: .* not by list"),
    "text": (lambda: X["a"], ArgumentError, r"index: .* not by str"),
    "ragged": (lambda: X[[[0], [1, 0]]], ShapeError, r"inhomogeneous"),
    "slice-float": (lambda: X[0.5:], ArgumentError, r"index: slice\(0\.5, None, None\): slice indices must be int"),
    "slice-step": (lambda: X[::0], ArgumentError, r"index: slice\(None, None, 0\): slice step cannot be zero"),
    "assign-slice": (lambda: X.__setitem__(slice("a"), 0), ArgumentError, r"item assignment: slice\(None, 'a', None\)"),
    "assign-none": (lambda: X.__setitem__(0, None), DTypeError, r"takes numbers, not object \(NoneType\)"),
    "assign-list": (lambda: X.__setitem__((0, 0), [None, 1, 2, 3]), DTypeError, r"takes numbers, not object"),
    "assign-text": (lambda: X.__setitem__(0, "3"), DTypeError, r"takes numbers, not <U1"),
    "assign-complex": (lambda: X.__setitem__(0, 1j), DTypeError, r"takes numbers, not complex128"),
    "assign-300": (lambda: BYTES.__setitem__(0, 300), DTypeError, r"item assignment: .*300 out of bounds for uint8"),
    "assign-range": (lambda: X.__setitem__([5], 0), RangeError, r"item assignment: \[5\] does not fit shape"),
    "assign-shape": (lambda: X.__setitem__([0, 1], np.ones((3, 2))), ShapeError, r"item assignment: .*\(3,\s?2\)"),
    "assign-mask": (lambda: X.__setitem__(np.ones((2, 3), bool), np.ones(5)), ShapeError, r"item assignment: "),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    assert (X.version.count, X.data.sum()) == (0, 276)
