"""Pooling at drawn geometries: values by loops, gradients as adjoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.kernels import ConvGeometry, avg_pool2d, avg_pool2d_grad, max_pool2d, max_pool2d_grad
from tests import reference

small = st.integers(1, 3)


@st.composite
def windows(draw: Any) -> tuple[tuple[int, ...], tuple[int, int], tuple[int, int], tuple[int, int]]:
    """The shape of x, a window that fits, a stride and a padding of at most half the window."""
    kernel, stride = draw(st.tuples(small, small)), draw(st.tuples(small, small))
    padding = draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))
    shape = draw(small), kernel[0] + draw(st.integers(0, 4)), kernel[1] + draw(st.integers(0, 4)), draw(small)
    return shape, kernel, stride, padding


def geometry(stride: tuple[int, int], padding: tuple[int, int]) -> ConvGeometry:
    return ConvGeometry(stride, (padding[0], padding[0], padding[1], padding[1]))


@given(windows())
def test_max_pool_is_linear_in_the_winners(drawn: Any) -> None:
    shape, kernel, stride, padding = drawn
    rng = np.random.default_rng(0)
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(float)
    y, index = max_pool2d(x, kernel, geometry(stride, padding))
    np.testing.assert_array_equal(y, reference.max_pool2d(x, kernel, stride, padding))
    gy = rng.standard_normal(y.shape)
    gx = max_pool2d_grad(gy, index, shape, kernel, geometry(stride, padding))
    assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-12, abs=1e-11)


@given(windows())
def test_avg_pool_and_its_adjoint(drawn: Any) -> None:
    shape, kernel, stride, padding = drawn
    rng = np.random.default_rng(0)
    x, count = rng.standard_normal(shape), np.float64(kernel[0] * kernel[1])
    y = avg_pool2d(x, kernel, geometry(stride, padding), count)
    np.testing.assert_allclose(y, reference.avg_pool2d(x, kernel, stride, padding), rtol=1e-12, atol=1e-14)
    gy = rng.standard_normal(y.shape)
    gx = avg_pool2d_grad(gy, shape, kernel, geometry(stride, padding), count)
    assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("kernel", "dtype"), [((16, 16), np.uint8), ((16, 17), np.int32)], ids=str)
def test_winners_take_as_few_bytes_as_they_can(kernel: tuple[int, int], dtype: Any) -> None:
    x = np.zeros((1, *kernel, 1))
    x[0, -1, -1] = 1
    y, index = max_pool2d(x, kernel, ConvGeometry())
    assert (y.item(), index.item(), index.dtype) == (1, kernel[0] * kernel[1] - 1, dtype)
