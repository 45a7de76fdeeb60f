"""Ops that rearrange: views, odd shapes, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, GraphError, RangeError, ShapeError

X = Tensor(np.arange(24.0).reshape(2, 3, 4))

VIEWS = {
    "reshape": lambda x: x.reshape(4, 6),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 1),
    "flatten": lambda x: x.flatten(1),
    "squeeze": lambda x: x.squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 5, -1, -1),
    "split": lambda x: x.split(2, 1)[1],
    "chunk": lambda x: x.chunk(2, 2)[0],
}


@pytest.mark.parametrize("op", VIEWS.values(), ids=VIEWS)
def test_a_view_shares_memory(op: Any) -> None:
    assert np.shares_memory(op(X).data, X.data)


def test_integers_keep_their_type() -> None:
    whole = Tensor(X.data.astype(np.int64))
    others = (
        ops.concatenate([whole, whole]),
        ops.stack([whole]),
        ops.pad(whole, (1, 1)),
        ops.pad(whole, (1, 1), "reflect"),
    )
    assert {y.dtype for y in (*(op(whole) for op in VIEWS.values()), *others)} == {np.dtype(np.int64)}
    np.testing.assert_array_equal(
        ops.pad(whole, (1, 0), value=5).data, np.pad(whole.data, ((0, 0), (0, 0), (1, 0)), constant_values=5)
    )


def test_numbers_and_empty_tensors() -> None:
    assert Tensor(3.0).reshape(1, 1).shape == (1, 1)
    assert Tensor(3.0).flatten().shape == (1,)
    assert Tensor(np.zeros((0, 3))).reshape(-1, 3).shape == (0, 3)
    assert Tensor(np.zeros((0, 3))).flatten(1).shape == (0, 3)
    assert Tensor([[5.0]]).reshape(()).shape == ()
    assert Tensor([[5.0]]).squeeze(()).shape == (1, 1)
    assert Tensor(np.ones(6)).reshape(np.array([2, 3])).shape == (2, 3)
    assert [p.shape for p in Tensor(np.ones(3)).split(np.array([1, 2]))] == [(1,), (2,)]


def test_what_shares_memory_shares_the_version() -> None:
    """A write into a view counts as one into its source; an expanded view can be written by nobody."""
    x = Tensor(np.ones((2, 1)))
    for part in (x.squeeze(), x.unsqueeze(0), x.split(1)[1], x.chunk(2)[0]):
        before = x.version.count
        part += 1
        assert x.version.count == before + 1
    assert x.data.sum() == 8
    with pytest.raises(GraphError, match="read-only"):
        x.expand(2, 3).__iadd__(1)


@pytest.mark.parametrize("sizes", [2, 5, [0, 3, 2], (5,)])
def test_parts_make_the_whole_again(sizes: Any) -> None:
    x = Tensor(np.arange(10.0).reshape(2, 5))
    parts = x.split(sizes, 1)
    assert [p.shape[1] for p in parts] == ([2, 2, 1] if sizes == 2 else [5] if sizes == 5 else list(sizes))
    np.testing.assert_array_equal(ops.cat(parts, 1).data, x.data)


def test_chunks_are_of_one_size_but_for_the_last() -> None:
    assert [[len(p) for p in Tensor(np.ones(n)).chunk(4)] for n in (8, 5, 3, 0)] == [
        [2, 2, 2, 2], [2, 2, 1], [1, 1, 1], [0, 0, 0, 0]]  # fmt: skip


def test_sizes_of_nothing() -> None:
    """An empty batch keeps its other sizes; -1 is known from its own dimension alone."""
    empty = Tensor(np.zeros((0, 4)))
    assert empty.unflatten(1, (2, -1)).shape == (0, 2, 2)
    assert empty.unflatten(0, (2, -1)).shape == (2, 0, 4)
    assert Tensor(3.0).unflatten(0, (1, -1)).shape == (1, 1)
    assert empty.unsqueeze(1).expand(-1, 3, -1).shape == (0, 3, 4)
    assert Tensor(np.ones(1)).expand(0).shape == (0,)
    assert ops.stack([empty, empty]).shape == (2, 0, 4)
    assert [p.shape for p in empty.split(2)] == [(0, 4)]
    assert ops.pad(empty, (1, 1, 0, 2), value=3).data.tolist() == [[3] * 6] * 2
    assert ops.pad(empty, (2, 0), "reflect").shape == (0, 6)


def test_a_tensor_without_dimensions() -> None:
    x = Tensor(3.0, requires_grad=True)
    for y in (x.squeeze(), x.unsqueeze(0), x.expand(2, 3), ops.stack([x, x]), ops.pad(x, ()), x.expand_as(np.ones(2))):
        x.grad = None
        y.sum().backward()
        assert x.grad.item() == y.numel()


def test_padding_counts_from_the_last_dimension() -> None:
    """So that of (N, H, W, C) images the channels come first, then the columns."""
    images = Tensor(np.ones((1, 2, 3, 1)))
    outside, inside = [0, 0, 0, 0, 0], [0, 1, 1, 1, 0]
    padded = ops.pad(images, (0, 0, 1, 1, 2, 2)).data[0, :, :, 0]
    assert padded.tolist() == [outside, outside, inside, inside, outside, outside]
    row = Tensor([[1, 2, 3]])
    assert ops.pad(row, (2, 1), "reflect").tolist() == [[3, 2, 1, 2, 3, 2]]
    assert ops.pad(row, (2, 1), "replicate").tolist() == [[1, 1, 1, 2, 3, 3]]
    assert ops.pad(row, (-1, 1), value=7).tolist() == [[2, 3, 7]]


WHOLE = Tensor(np.ones(2, np.uint8))
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
    "fraction": (lambda: X.reshape(2.9, 12), ArgumentError, r"reshape: ints expected, not \(2\.9, 12\)"),
    "text": (lambda: X.reshape("24"), ArgumentError, r"reshape: ints expected, not \('24',\)"),
    "order": (lambda: X.flatten(2, 1), ArgumentError, r"flatten: start_dim 2 comes after end_dim 1"),
    "flatten": (lambda: X.flatten(3), RangeError, r"flatten: dimension 3 is out of range for a tensor of 3"),
    "permute-few": (lambda: X.permute(0, 1), ShapeError, r"permute: \(0, 1\) does not name each of the 3 dimensions"),
    "permute-twice": (lambda: X.permute(0, 1, 1), ShapeError, r"permute: \(0, 1, 1\) does not name each"),
    "permute-range": (lambda: X.permute(0, 1, 3), RangeError, r"permute: dimension 3 is out of range"),
    "permute-float": (lambda: X.permute(0, 1.0, 2), ArgumentError, r"permute: ints expected, not \(0, 1\.0, 2\)"),
    "transpose-float": (lambda: X.transpose(0, 1.0), ArgumentError, r"transpose: a dimension is an int, not 1\.0"),
    "transpose": (lambda: X.transpose(0, 3), RangeError, r"transpose: dimension 3 is out of range"),
    "squeeze": (lambda: X.squeeze(3), RangeError, r"squeeze: dimension 3 is out of range for a tensor of 3"),
    "unsqueeze": (lambda: X.unsqueeze(4), RangeError, r"unsqueeze: dimension 4 is out of range"),
    "unflatten": (
        lambda: X.unflatten(2, (3, -1)),
        ShapeError,
        r"unflatten: dimension 2 of shape \(2, 3, 4\) .* \(3, -1\)",
    ),
    "unflatten-float": (lambda: X.unflatten(2, (2.0, 2)), ArgumentError, r"unflatten: ints expected, not \(2\.0, 2\)"),
    "unflatten-two": (lambda: X.unflatten(2, (-1, 2, -1)), ShapeError, r"unflatten: .* \(-1, 2, -1\)"),
    "unflatten-ones": (lambda: X[:1].unflatten(0, (-1, -1)), ShapeError, r"unflatten: .* \(-1, -1\)"),
    "unflatten-zero": (lambda: X[:0].unflatten(0, (0, -1)), ShapeError, r"unflatten: .* \(0, -1\)"),
    "unflatten-none": (lambda: X.unflatten(2, ()), ShapeError, r"unflatten: .* cannot become \(\)"),
    "expand": (lambda: X.expand(2, 3, 5), ShapeError, r"expand: shape \(2, 3, 4\) cannot become \(2, 3, 5\)"),
    "expand-float": (lambda: X.expand(2.0, 3, 4), ArgumentError, r"expand: ints expected, not \(2\.0, 3, 4\)"),
    "expand-less": (lambda: X.expand(3, 4), ShapeError, r"expand: shape \(2, 3, 4\) cannot become \(3, 4\)"),
    "expand-to-one": (lambda: X.expand(1, 3, 4), ShapeError, r"expand: .* only sizes of 1 and new ones repeat"),
    "expand-unknown": (lambda: X.expand(-1, 2, 3, 4), ShapeError, r"expand: .* cannot become \(-1, 2, 3, 4\)"),
    "concatenate": (
        lambda: ops.concatenate([X, X[:, :2]]),
        ShapeError,
        r"concatenate: shapes \(2, 3, 4\), \(2, 2, 4\) differ in more than dimension 0",
    ),
    "concatenate-dims": (lambda: ops.concatenate([X, X[0]]), ShapeError, r"concatenate: shapes .*\(3, 4\) differ"),
    "concatenate-none": (lambda: ops.concatenate([]), ShapeError, r"concatenate: expects tensors .* stack"),
    "concatenate-numbers": (lambda: ops.concatenate([1, 2]), ShapeError, r"concatenate: expects tensors .* stack"),
    "concatenate-range": (lambda: ops.concatenate([X], 3), RangeError, r"concatenate: dimension 3 is out of range"),
    "concatenate-types": (
        lambda: ops.concatenate([X, X.to("float32")]),
        DTypeError,
        r"concatenate: one dtype expected, not float64, float32; convert",
    ),
    "stack": (lambda: ops.stack([X, X[0]]), ShapeError, r"stack: expects one shape, not \(2, 3, 4\), \(3, 4\)"),
    "stack-none": (lambda: ops.stack([]), ShapeError, r"stack: expects one shape, not an empty list"),
    "stack-range": (lambda: ops.stack([X], 4), RangeError, r"unsqueeze: dimension 4 is out of range"),
    "split": (lambda: X.split([1, 1], 1), ShapeError, r"split: dimension 1 of shape \(2, 3, 4\) .* \[1, 1\]"),
    "split-float": (lambda: X.split(2.0), ArgumentError, r"split: ints expected, not \(2\.0,\)"),
    "split-floats": (lambda: X.split([1.0, 1.0]), ArgumentError, r"split: ints expected, not \[1\.0, 1\.0\]"),
    "split-negative": (lambda: X.split([4, -1], 1), ShapeError, r"split: .* does not split into \[4, -1\]"),
    "split-nothing": (lambda: X.split(0), ShapeError, r"split: .* does not split into 0"),
    "split-number": (lambda: Tensor(1.0).split(1), ShapeError, r"split: dimension 0 of shape \(\)"),
    "chunk": (lambda: X.chunk(0), ArgumentError, r"chunk: at least 1 chunk expected, not 0"),
    "chunk-float": (lambda: X.chunk(2.5), ArgumentError, r"chunk: at least 1 chunk expected, not 2\.5"),
    "pad-one": (lambda: ops.pad(X, 1), ArgumentError, r"pad: pad must hold two ints for each .*, not \(1,\)"),
    "pad-tensor": (lambda: ops.pad(X, (1, 1), value=X), ArgumentError, r"pad: value must be a number, not Tensor"),
    "pad-nan": (lambda: ops.pad(WHOLE, (1, 1), value=np.nan), DTypeError, r"pad: uint8 does not hold nan; convert"),
    "pad-300": (lambda: ops.pad(WHOLE, (1, 1), value=300), DTypeError, r"pad: uint8 does not hold 300; convert"),
    "pad-odd": (
        lambda: ops.pad(X, (1, 2, 3)),
        ArgumentError,
        r"pad: .* last dimensions of \(2, 3, 4\), not \(1, 2, 3\)",
    ),
    "pad-many": (lambda: ops.pad(X, (1,) * 8), ArgumentError, r"pad: pad must hold two ints for each"),
    "pad-float": (lambda: ops.pad(X, (1.0, 1)), ArgumentError, r"pad: .* not \(1\.0, 1\)"),
    "pad-crop": (lambda: ops.pad(X, (-3, -2)), ShapeError, r"pad: \(-3, -2\) cuts off more of \(2, 3, 4\)"),
    "pad-mode": (lambda: ops.pad(X, (1, 1), "mirror"), ArgumentError, r"pad: mode must be .* not mode 'mirror'"),
    "pad-value": (lambda: ops.pad(X, (1, 1), "reflect", 1), ArgumentError, r"value goes with the first"),
    "pad-reflect": (
        lambda: ops.pad(X, (0, 0, 3, 0), "reflect"),
        ShapeError,
        r"pad: mode 'reflect' needs .* 4 elements or more for \(3, 0\), but dimension 1 of \(2, 3, 4\) has 3",
    ),
    "pad-replicate": (lambda: ops.pad(X[:, :, :0], (1, 0), "replicate"), ShapeError, r"1 elements or more"),
    "pad-mirror-crop": (lambda: ops.pad(X, (-1, 0), "replicate"), ShapeError, r"numbers of at least 0"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
    assert ops.flatten(X).shape == (24,)
