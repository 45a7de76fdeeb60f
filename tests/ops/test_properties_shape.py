"""Rearrangements and indexing of arrays of any shape, floating type and memory layout: to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minires import Tensor, ops
from tests.ops.properties import check, check_adjoint, run, weights_for
from tests.oracle import torch
from tests.strategies import arrays, dtypes, shapes

some = settings(max_examples=60)
not_number = shapes(min_dims=1)


@st.composite
def reshaped(draw: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """An array, and another shape for it: factors of its size, one of them perhaps left open."""
    x = draw(arrays())
    sizes, left = [], x.size
    for _ in range(draw(st.integers(0, 2))):
        size = draw(st.sampled_from([n for n in range(1, max(left, 1) + 1) if left % n == 0]))
        sizes.append(size)
        left //= size
    sizes.append(left)
    if x.size and draw(st.booleans()):
        sizes[draw(st.integers(0, len(sizes) - 1))] = -1
    return x, tuple(sizes)


@some
@given(reshaped())
def test_reshape(drawn: Any) -> None:
    x, sizes = drawn
    check(lambda t: t.reshape(sizes), lambda t: t.reshape(sizes), [x], exact=True)


@some
@given(x=arrays(), data=st.data())
def test_dimensions_exchanged_added_and_removed(x: np.ndarray, data: Any) -> None:
    order = data.draw(st.permutations(range(x.ndim)))
    dim = data.draw(st.integers(-x.ndim - 1, x.ndim))
    check(lambda t: t.permute(*order), lambda t: t.permute(order), [x], exact=True)
    check(lambda t: t.unsqueeze(dim), lambda t: t.unsqueeze(dim), [x], exact=True)
    check(lambda t: t.squeeze(), lambda t: t.squeeze(), [x], exact=True)
    if x.ndim:
        dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
        check(lambda t: t.squeeze(dim), lambda t: t.squeeze(dim), [x], exact=True)
        size = x.shape[dim]
        parts = data.draw(st.sampled_from([(size,), (1, size), (-1, 1)] + [(2, -1)] * (size % 2 == 0)))
        assume(-1 not in parts or x.size)  # PyTorch cannot tell
        check(lambda t: t.unflatten(dim, parts), lambda t: t.unflatten(dim, parts), [x], exact=True)


@some
@given(x=arrays(shape=shapes(max_dims=2)), data=st.data())
def test_expand(x: np.ndarray, data: Any) -> None:
    added = data.draw(st.lists(st.integers(0, 3), max_size=2))
    sizes = [data.draw(st.integers(0, 3)) if size == 1 else data.draw(st.sampled_from([size, -1])) for size in x.shape]
    check(lambda t: t.expand(*added, *sizes), lambda t: t.expand([*added, *sizes]), [x], exact=x.dtype != np.float16)
    check_adjoint(lambda t: t.expand(*added, *sizes), [x])


@some
@given(shape=not_number, dtype=dtypes, data=st.data())
def test_joined_and_split(shape: tuple[int, ...], dtype: Any, data: Any) -> None:
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    axis = dim % len(shape)
    parts = [data.draw(arrays((*shape[:axis], size, *shape[axis + 1 :]), dtype)) for size in sizes]
    check(lambda *t: ops.concatenate(t, dim), lambda *t: torch.cat(t, dim), parts, exact=True)
    check_adjoint(lambda *t: ops.concatenate(t, dim), parts)
    alike = [parts[0]] * len(sizes)
    check(lambda *t: ops.stack(t, dim), lambda *t: torch.stack(t, dim), alike, exact=True)
    whole = np.concatenate(parts, dim)
    place = data.draw(st.integers(0, len(sizes) - 1))
    check(lambda t: t.split(sizes, dim)[place] * 1, lambda t: t.split(sizes, dim)[place] * 1, [whole], exact=True)
    check_adjoint(lambda t: ops.concatenate([p * 2 for p in ops.split(t, sizes, dim)], dim), [whole])
    step = data.draw(st.integers(1, 4))
    got, want = ops.split(Tensor(whole), step, dim), torch.tensor(whole.copy()).split(step, dim)
    assert [p.shape for p in got] == [tuple(p.shape) for p in want]
    got, want = ops.chunk(Tensor(whole), step, dim), torch.tensor(whole.copy()).chunk(step, dim)
    assert [p.shape for p in got] == [tuple(p.shape) for p in want]


@some
@given(x=arrays(shape=not_number), data=st.data())
def test_pad_with_a_number(x: np.ndarray, data: Any) -> None:
    """Numbers below 0 cut off, down to nothing."""
    pads = []
    for size in x.shape[::-1][: data.draw(st.integers(0, x.ndim))]:
        before = data.draw(st.integers(-size, 3))
        pads += [before, data.draw(st.integers(-size - min(before, 0), 3))]
    value = data.draw(st.sampled_from([None, 1.5]))
    theirs = lambda t: torch.nn.functional.pad(t, pads, "constant", value) if pads else t * 1  # noqa: E731
    check(lambda t: ops.pad(t, pads, value=value), theirs, [x], exact=True)
    check_adjoint(lambda t: ops.pad(t, pads), [x])


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
@some
@given(x=arrays(shape=shapes(min_dims=1, min_side=1)), data=st.data())
def test_pad_with_what_is_there(mode: str, x: np.ndarray, data: Any) -> None:
    """NumPy has both modes for any axes, PyTorch for some."""
    pads = []
    for size in x.shape[::-1]:
        widths = st.integers(0, size - 1 if mode == "reflect" else 4)
        pads += [data.draw(widths), data.draw(widths)]
    pairs = list(zip(pads[0::2], pads[1::2], strict=True))[::-1]
    y = ops.pad(Tensor(x), pads, mode)
    np.testing.assert_array_equal(y.data, np.pad(x, pairs, {"reflect": "reflect", "replicate": "edge"}[mode]))
    check_adjoint(lambda t: ops.pad(t, pads, mode), [x])


@st.composite
def indexed(draw: Any) -> tuple[np.ndarray, tuple[Any, ...]]:
    """An array, and an index of numbers, slices, None, `...`, and arrays that broadcast or a mask among them."""
    x = draw(arrays(shape=shapes(min_dims=1, max_dims=3, min_side=draw(st.sampled_from([0, 1, 1, 1])))))
    named = draw(st.integers(1, x.ndim))
    masked = draw(st.integers(0, 2 * named))  # the axis that a mask is for, if there is such an axis
    together = draw(shapes(min_dims=1, max_dims=2, min_side=1, max_side=3))
    if masked < named:
        mask = np.array(draw(st.lists(st.booleans(), min_size=x.shape[masked], max_size=x.shape[masked])), dtype=bool)
        together = (max(int(mask.sum()), 1),)  # what stands beside it must broadcast with its places
    parts: list[Any] = []
    for axis, size in enumerate(x.shape[:named]):
        kind = draw(st.sampled_from(["array", "array", "slice", "number"])) if size else "slice"
        if axis == masked:
            parts.append(mask)
        elif kind == "slice":
            ends = st.one_of(st.none(), st.integers(-5, 5))
            parts.append(slice(draw(ends), draw(ends), draw(st.sampled_from([None, 1, 2, -1, -2]))))
        elif kind == "number":
            parts.append(draw(st.integers(-size, size - 1)))
        else:
            shape = tuple(draw(st.sampled_from([n, n, 1])) for n in together)
            parts.append(draw(hnp.arrays(np.int64, shape, elements=st.integers(-size, size - 1), fill=st.nothing())))
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from([None, Ellipsis])))
    return x, tuple(parts)


@settings(max_examples=400)
@given(indexed())
def test_index_is_numpys(drawn: Any) -> None:
    """Also where it refuses: then both do. The gradient adds up all that was taken from a place."""
    x, where = drawn
    try:
        want = x[where]
    except IndexError:
        with pytest.raises(IndexError):
            Tensor(x)[where]
        return
    y, gx = run(lambda t: t[where], [x])
    np.testing.assert_array_equal(y, want)
    counted = np.zeros(x.shape)
    np.add.at(counted, where, weights_for(want.shape))
    np.testing.assert_array_equal(gx, counted.astype(x.dtype))
    check_adjoint(lambda t: t[where], [x])
    written, expected = Tensor(x.copy()), x.copy()
    written[where], expected[where] = want[...] * 2, want[...] * 2
    np.testing.assert_array_equal(written.data, expected)
