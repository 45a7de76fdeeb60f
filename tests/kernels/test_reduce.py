"""Sums, means and variances: over any axes, over many terms, and as adjoints of broadcasting and of taking rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.kernels import (
    logsumexp,
    mean_axes,
    std_axes,
    std_axes_grad,
    sum_axes,
    sum_rows_at,
    sum_to_shape,
    use,
    var_axes,
    var_axes_grad,
)
from minires.kernels.portable.reduce import RUN, centred, column_sum

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
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 5e-7), (np.float64, 1e-14)])
def test_many_terms(rng: np.random.Generator, axes: tuple[int, ...], order: Any, dtype: Any, rtol: float) -> None:
    """Row by row float32 would be off by 1e-5, float64 by 2e-14."""
    x = np.asarray(rng.random((131072, 64), dtype=dtype), order=order)
    want = x.sum(axis=axes, dtype=np.longdouble).astype(np.float64)
    np.testing.assert_allclose(sum_axes(x, axes), want, rtol=rtol)


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


@given(axes=axes_of_four, keepdims=st.booleans(), shape=st.tuples(*[st.integers(0, 4)] * 4))
def test_moments_over_any_axes(axes: tuple[int, ...], keepdims: bool, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, for the mean of nothing
        want = [f(x, axis=axes, keepdims=keepdims) for f in (np.mean, np.var, np.std)]
    got = [mean_axes(x, axes, keepdims), var_axes(x, axes, 0, keepdims), std_axes(x, axes, 0, keepdims)]
    for g, w in zip(got, want, strict=True):
        assert (g.shape, g.dtype) == (w.shape, x.dtype)
        np.testing.assert_allclose(g, w, rtol=1e-13, atol=1e-15)


@given(axes=axes_of_four, keepdims=st.booleans(), shape=st.tuples(*[st.integers(1, 4)] * 4))
def test_logsumexp_over_any_axes(axes: tuple[int, ...], keepdims: bool, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    got, want = logsumexp(x, axes, keepdims), np.log(np.exp(x).sum(axis=axes, keepdims=keepdims))
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-14)


@given(mean=st.floats(-1e6, 1e6, width=32), shape=st.tuples(st.integers(2, 70), st.integers(1, 5)))
def test_variance_is_exact_in_float32(mean: float, shape: tuple[int, int]) -> None:
    x = (mean + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    exact = x.astype(np.longdouble)
    want = np.square(exact - exact.mean(0)).sum(0) / (shape[0] - 1)
    np.testing.assert_allclose(var_axes(x, (0,), 1), want.astype(np.float64), rtol=5e-7, atol=1e-12)
    np.testing.assert_allclose(std_axes(x, (0,), 1), np.sqrt(want).astype(np.float64), rtol=5e-7, atol=1e-6)


def test_what_rounding_took_from_the_mean_is_subtracted_too() -> None:
    """Near 1e6 the floats are 1/16 apart: the mean of these two, 1e6 + 1/32, is none of them."""
    x = np.array([1e6, 1e6 + 0.0625], np.float32)
    np.testing.assert_array_equal(centred(x, (0,)), np.float32([-0.03125, 0.03125]))
    assert var_axes(x, (0,), 1) == np.float32(0.0625**2 / 2)
    np.testing.assert_array_equal(var_axes_grad(np.float32(1), x, (0,), 1), np.float32([-0.0625, 0.0625]))
    np.testing.assert_allclose(std_axes_grad(np.float32(1), x, (0,), 1), np.sqrt([0.5, 0.5]) * [-1, 1], rtol=1e-7)


@given(st.integers(0, 5), st.lists(st.integers(0, 4), max_size=12), st.integers(0, 3))
def test_sum_rows_at_is_the_adjoint_of_taking_rows(rows: int, drawn: list[int], columns: int) -> None:
    places = np.array([place for place in drawn if place < rows], dtype=np.int64)
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((rows, columns)), rng.standard_normal((len(places), columns))
    got = sum_rows_at(gy, places, rows)
    assert got.shape == x.shape
    assert np.vdot(x[places], gy) == pytest.approx(np.vdot(x, got), rel=1e-12, abs=1e-12)
    want = np.zeros_like(x)
    for place, row in zip(places, gy, strict=True):
        want[place] += row
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-15)


@given(st.integers(0, 5), st.lists(st.integers(0, 4), max_size=12), st.integers(0, 3))
def test_counted_rows_are_those_of_sorting(rows: int, drawn: list[int], columns: int) -> None:
    places = np.array([place for place in drawn if place < rows], dtype=np.int64)
    gy = np.random.default_rng(0).standard_normal((len(places), columns)).astype(np.float32)
    with use("portable"):
        want = sum_rows_at(gy, places, rows)
    with use(sum_rows_at="counted"):
        got = sum_rows_at(gy, places, rows)
    assert (got.shape, got.dtype) == (want.shape, np.float32)
    np.testing.assert_allclose(got, want, rtol=1.2e-7, atol=1e-12)  # both from float64, rounded once


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_many_rows_at_one_place(rng: np.random.Generator, dtype: Any) -> None:
    gy = (rng.random((131072, 2)) / 4).astype(dtype)
    got = sum_rows_at(gy, np.ones(len(gy), np.int64), 3)
    want = np.stack([[0, 0], gy.sum(0, dtype=np.float64), [0, 0]])
    assert got.dtype == dtype
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=5e-7 if dtype == np.float32 else 1e-3)
