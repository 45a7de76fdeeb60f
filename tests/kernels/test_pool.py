"""Pooling at drawn geometries: values by loops, gradients as adjoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires import kernels
from minires.kernels import (
    ConvGeometry,
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_grad,
    adaptive_max_pool2d,
    adaptive_max_pool2d_grad,
    avg_pool2d,
    avg_pool2d_grad,
    max_pool2d,
    max_pool2d_grad,
)
from minires.kernels.cpu import blocks
from minires.kernels.portable.pool import spans
from tests import reference

small = st.integers(1, 3)


@st.composite
def windows(draw: Any, dilated: bool = False) -> tuple[tuple[int, ...], tuple[int, int], ConvGeometry]:
    """The shape of x, a window that fits, and how it moves, with four paddings of at most half the window."""
    kernel, stride = draw(st.tuples(small, small)), draw(st.tuples(small, small))
    pads = [draw(st.integers(0, kernel[side // 2] // 2)) for side in range(4)]
    dilation = draw(st.tuples(small, small)) if dilated else (1, 1)
    geometry = ConvGeometry(stride, tuple(pads), dilation)
    high, wide = geometry.extent(kernel)
    shape = draw(st.integers(0, 3)), high + draw(st.integers(0, 4)), wide + draw(st.integers(0, 4)), draw(small)
    return shape, kernel, geometry


def loops(geometry: ConvGeometry) -> tuple[Any, Any]:
    """Stride and padding as the loops take them."""
    return geometry.stride, (geometry.padding[:2], geometry.padding[2:])


@given(windows(dilated=True))
def test_max_pool_is_linear_in_the_winners(drawn: Any) -> None:
    shape, kernel, geometry = drawn
    rng = np.random.default_rng(0)
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(float)
    y, index = max_pool2d(x, kernel, geometry)
    np.testing.assert_array_equal(y, reference.max_pool2d(x, kernel, *loops(geometry), geometry.dilation))
    gy = rng.standard_normal(y.shape)
    gx = max_pool2d_grad(gy, index, shape, kernel, geometry)
    assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-12, abs=1e-11)


@given(windows())
def test_avg_pool_and_its_adjoint(drawn: Any) -> None:
    shape, kernel, geometry = drawn
    rng = np.random.default_rng(0)
    x, count = rng.standard_normal(shape), np.float64(kernel[0] * kernel[1])
    y = avg_pool2d(x, kernel, geometry, count)
    np.testing.assert_allclose(y, reference.avg_pool2d(x, kernel, *loops(geometry)), rtol=1e-12, atol=1e-14)
    gy = rng.standard_normal(y.shape)
    gx = avg_pool2d_grad(gy, shape, kernel, geometry, count)
    assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(drawn=windows(dilated=True), block_bytes=st.sampled_from([1, 100, 1 << 20]))
def test_pooling_in_blocks_is_the_whole_one(dtype: Any, drawn: Any, block_bytes: int) -> None:
    """To the bit, also among equals, NaN and infinities, values and gradients."""
    shape, kernel, geometry = drawn
    rng = np.random.default_rng(0)
    x = rng.choice([-np.inf, -1, 0, 1, np.inf, np.nan], size=shape).astype(dtype)
    plain, count = rng.standard_normal(shape).astype(dtype), np.full((1, 1, 1), kernel[0] * kernel[1], dtype)
    results = []
    for name in ("portable", "blocked"):
        names = dict.fromkeys(("max_pool2d", "max_pool2d_grad", "avg_pool2d", "avg_pool2d_grad"), name)
        with pytest.MonkeyPatch.context() as patch, kernels.use(**names):
            patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
            y, index = max_pool2d(x, kernel, geometry)
            gy = np.arange(y.size, dtype=dtype).reshape(y.shape)
            mean = avg_pool2d(plain, kernel, geometry, count)
            pixels = max_pool2d_grad(gy, index, shape, kernel, geometry)
            results.append([y, index, mean, pixels, avg_pool2d_grad(mean, shape, kernel, geometry, count)])
    for got, want in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want, strict=True)


sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


@given(st.integers(0, 2), sizes, sizes, small)
def test_adaptive_pools_are_the_loops_and_their_gradients_adjoint(n: int, size: Any, out: Any, c: int) -> None:
    rng = np.random.default_rng(0)
    x, gy = rng.standard_normal((n, *size, c)), rng.standard_normal((n, *out, c))
    y = adaptive_avg_pool2d(x, out)
    np.testing.assert_allclose(y, reference.adaptive_avg_pool2d(x, out), rtol=1e-13, atol=1e-14)
    gx = adaptive_avg_pool2d_grad(gy, x.shape)
    assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-12, abs=1e-12)
    y, index = adaptive_max_pool2d(x, out)
    np.testing.assert_array_equal(y, reference.adaptive_max_pool2d(x, out))
    gx = adaptive_max_pool2d_grad(gy, index, x.shape)
    assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-12, abs=1e-12)
    assert index.dtype == np.int32


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("count", range(1, 9))
def test_windows_that_hold_a_place_are_the_same_rule_the_other_way(size: int, count: int) -> None:
    windows, back = spans(size, count), spans(count, size)
    for place, window in np.ndindex(size, count):
        assert (place in range(*windows[window])) == (window in range(*back[place]))


@pytest.mark.parametrize(("kernel", "dtype"), [((16, 16), np.uint8), ((1, 257), np.int32)], ids=str)
def test_winners_take_as_few_bytes_as_they_can(kernel: tuple[int, int], dtype: Any) -> None:
    x = np.zeros((1, *kernel, 1))
    x[0, -1, -1] = 1
    y, index = max_pool2d(x, kernel, ConvGeometry())
    assert (y.item(), index.item(), index.dtype) == (1, kernel[0] * kernel[1] - 1, dtype)
