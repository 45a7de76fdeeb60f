"""Ops that rearrange: views, odd shapes, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, RangeError, ShapeError

X = Tensor(np.arange(24.0).reshape(2, 3, 4))

VIEWS = {
    "reshape": lambda x: x.reshape(4, 6),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 1),
    "flatten": lambda x: x.flatten(1),
    "index": lambda x: x[:, 1],
}


@pytest.mark.parametrize("op", VIEWS.values(), ids=VIEWS)
def test_a_view_shares_memory(op: Any) -> None:
    assert np.shares_memory(op(X).data, X.data)


def test_integers_keep_their_type() -> None:
    assert all(op(Tensor(X.data.astype(np.int64))).dtype == np.int64 for op in VIEWS.values())


def test_numbers_and_empty_tensors() -> None:
    assert Tensor(3.0).reshape(1, 1).shape == (1, 1)
    assert Tensor(3.0).flatten().shape == (1,)
    assert Tensor(np.zeros((0, 3))).reshape(-1, 3).shape == (0, 3)
    assert Tensor(np.zeros((0, 3))).flatten(1).shape == (0, 3)
    assert Tensor([[5.0]]).reshape(()).shape == ()


REFUSED = {
    "sizes": (
        lambda: X.reshape(5, 5),
        ShapeError,
        r"reshape: .*\(2, 3, 4\) \(24 elements\) cannot take shape \(5, 5\)",
    ),
    "two-unknown": (lambda: X.reshape(-1, -1), ShapeError, r"reshape: .* cannot take shape \(-1, -1\)"),
    "no-divisor": (lambda: X.reshape(-1, 5), ShapeError, r"reshape: .* cannot take shape \(-1, 5\)"),
    "negative": (lambda: X.reshape(-2, -12), ShapeError, r"reshape: .* cannot take shape \(-2, -12\)"),
    "ambiguous": (lambda: X[:0].reshape(-1, 0), ShapeError, r"reshape: .* cannot take shape \(-1, 0\)"),
    "order": (lambda: X.flatten(2, 1), ArgumentError, r"flatten: start_dim 2 comes after end_dim 1"),
    "flatten": (lambda: X.flatten(3), RangeError, r"flatten: dimension 3 is out of range for a tensor of 3"),
    "permute-few": (lambda: X.permute(0, 1), ShapeError, r"permute: \(0, 1\) does not name each of the 3 dimensions"),
    "permute-twice": (lambda: X.permute(0, 1, 1), ShapeError, r"permute: \(0, 1, 1\) does not name each"),
    "permute-range": (lambda: X.permute(0, 1, 3), RangeError, r"permute: dimension 3 is out of range"),
    "transpose": (lambda: X.transpose(0, 3), RangeError, r"transpose: dimension 3 is out of range"),
    "index-range": (lambda: X[2], RangeError, r"index: 2 does not fit shape \(2, 3, 4\)"),
    "index-many": (lambda: X[0, 0, 0, 0], RangeError, r"index: \(0, 0, 0, 0\) does not fit shape \(2, 3, 4\)"),
    "index-list": (lambda: X[[0, 1]], ArgumentError, r"index by integers, slices, None and \.\.\., not by list"),
    "index-bool": (lambda: X[True], ArgumentError, r"index: .* not by bool; for an index without a gradient"),
    "index-array": (lambda: X[np.array([0])], ArgumentError, r"index: .* not by ndarray; .*x\.data"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    assert ops.flatten(X).shape == (24,)
