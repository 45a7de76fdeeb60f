"""Sums: over any axes, over many terms, and as the adjoint of broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.kernels import sum_axes, sum_to_shape
from minires.kernels.portable.reduce import RUN, column_sum

axes_of_four = st.lists(st.integers(0, 3), max_size=4, unique=True).map(tuple)


@given(axes=axes_of_four, keepdims=st.booleans(), shape=st.tuples(*[st.integers(0, 5)] * 4))
def test_sum_over_any_axes(axes: tuple[int, ...], keepdims: bool, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    got = sum_axes(x, axes, keepdims)
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got, x.sum(axis=axes, keepdims=keepdims), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("rows", [0, 1, RUN - 1, RUN, RUN + 1, RUN**2 - 1, RUN**2 + RUN + 1])
def test_column_sum_takes_every_row_once(rows: int) -> None:
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    got = column_sum(x)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, x.sum(0, dtype=np.float64))


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_many_terms(rng: np.random.Generator, axes: tuple[int, ...], order: Any) -> None:
    x = np.asarray(rng.random((131072, 64), dtype=np.float32), order=order)
    np.testing.assert_allclose(sum_axes(x, axes), x.sum(axis=axes, dtype=np.float64), rtol=5e-7)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32])
def test_integers_sum_to_int64(dtype: Any) -> None:
    got = sum_axes(np.ones((300, 2), dtype=dtype), (0,))
    assert (got.dtype, got.tolist()) == (np.int64, [300, 300])


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=4), st.integers(0, 4))
def test_sum_to_shape_is_the_adjoint_of_broadcasting(sizes: list[tuple[int, bool]], dropped: int) -> None:
    full = tuple(size for size, _ in sizes)
    shape = tuple(1 if repeated else size for size, repeated in sizes)[dropped:]
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal(shape), rng.standard_normal(full)
    got = sum_to_shape(gy, shape)
    assert got.shape == shape
    assert np.vdot(np.broadcast_to(x, full), gy) == pytest.approx(np.vdot(x, got), rel=1e-12, abs=1e-12)
