"""Pools of drawn shapes, windows, types and memory layouts, beside PyTorch's in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minires import Tensor, ops
from tests.oracle import nchw, nhwc, torch
from tests.strategies import arrays

F = torch.nn.functional
many = settings(max_examples=80)
small = st.integers(1, 3)
pairs = st.tuples(small, small)
# Multiples of 1/8 in [-4, 4]: ties are common, and sums do not round.
images = arrays(st.tuples(st.integers(0, 2), st.integers(1, 7), st.integers(1, 7), st.integers(1, 2)))
ERRORS = {"float64": 1e-14, "float32": 5e-7, "float16": 1e-3}  # of means; maxima are exact


@st.composite
def paddings(draw: Any, kernel: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Four, each at most half the window."""
    rows, columns = (st.integers(0, k // 2) for k in kernel)
    return draw(st.tuples(rows, rows)), draw(st.tuples(columns, columns))


def check(ours: Any, theirs: Any, x: np.ndarray, exact: bool) -> None:
    """The result and the gradient of the two for x and one output gradient."""
    tensor, their_x = Tensor(x, requires_grad=True), nchw(x.astype(np.float64)).requires_grad_()
    y, want = ours(tensor), theirs(their_x)
    gy = np.random.default_rng(0).integers(-4, 5, y.shape).astype(x.dtype)
    y.backward(gy)
    want.backward(nchw(gy.astype(np.float64)))
    for got, right in ((y.data, nhwc(want)), (tensor.grad.data, nhwc(their_x.grad))):
        assert got.dtype == x.dtype
        if exact:
            np.testing.assert_array_equal(got, right.astype(x.dtype))
        else:
            limit = ERRORS[x.dtype.name] * np.max(np.abs(right), initial=0)
            np.testing.assert_allclose(got, right, rtol=0, atol=limit)


def fits(x: np.ndarray, kernel: Any, padding: Any, dilation: Any = (1, 1)) -> bool:
    return all(
        size + sum(pads) > (k - 1) * d for size, pads, k, d in zip(x.shape[1:3], padding, kernel, dilation, strict=True)
    )


@many
@given(images, pairs, pairs, pairs, st.data())
def test_max_pool2d_is_pytorchs(x: np.ndarray, kernel: Any, stride: Any, dilation: Any, data: Any) -> None:
    padding = data.draw(paddings(kernel))
    assume(fits(x, kernel, padding, dilation))

    def theirs(t: Any) -> Any:
        return F.max_pool2d(F.pad(t, (*padding[1], *padding[0]), value=-torch.inf), kernel, stride, 0, dilation)

    check(lambda t: ops.max_pool2d(t, kernel, stride, padding, dilation), theirs, x, exact=True)


@many
@given(images, pairs, pairs, pairs, st.data())
def test_max_pool2d_in_ceil_mode_is_pytorchs(x: np.ndarray, kernel: Any, stride: Any, dilation: Any, data: Any) -> None:
    padding = tuple(before for before, _ in data.draw(paddings(kernel)))
    assume(fits(x, kernel, zip(padding, padding, strict=True), dilation))
    settings = kernel, stride, padding, dilation, True
    # Where dilation lets a window see padding only, PyTorch 2.13 notes a pixel outside the image, and writes there.
    assume(np.isfinite(ops.max_pool2d(x, *settings).data).all())
    seen = np.isfinite(ops.max_pool2d(x, *settings).data)
    assume(seen.all())  # of a window that sees padding alone PyTorch sends the gradient to some pixel
    check(lambda t: ops.max_pool2d(t, *settings), lambda t: F.max_pool2d(t, *settings), x, exact=True)


@many
@given(images, pairs, pairs, st.booleans(), st.booleans(), st.data())
def test_avg_pool2d_is_pytorchs(x: np.ndarray, kernel: Any, stride: Any, ceil: bool, include: bool, data: Any) -> None:
    padding = tuple(before for before, _ in data.draw(paddings(kernel)))
    assume(fits(x, kernel, [(p, p) for p in padding]))
    settings = kernel, stride, padding, ceil, include
    check(lambda t: ops.avg_pool2d(t, *settings), lambda t: F.avg_pool2d(t, *settings), x, exact=False)


@many
@given(images, pairs, pairs)
def test_same_pools_see_the_image_only(x: np.ndarray, kernel: Any, stride: Any) -> None:
    """Where PyTorch pools an image with infinities or zeros around it, and counts what is not padding."""
    y = ops.max_pool2d(Tensor(x, requires_grad=True), kernel, stride, "same")
    top, bottom, left, right = y.node.geometry.padding
    assert y.shape[1:3] == tuple(-(-size // s) for size, s in zip(x.shape[1:3], stride, strict=True))

    def padded(t: Any, value: float) -> Any:
        return F.pad(t, (left, right, top, bottom), value=value)

    def mean(t: Any) -> Any:
        counted = F.avg_pool2d(padded(torch.ones_like(t), 0), kernel, stride)
        return F.avg_pool2d(padded(t, 0), kernel, stride) / counted

    check(
        lambda t: ops.max_pool2d(t, kernel, stride, "same"),
        lambda t: F.max_pool2d(padded(t, -torch.inf), kernel, stride),
        x,
        exact=True,
    )
    check(lambda t: ops.avg_pool2d(t, kernel, stride, "same"), mean, x, exact=False)


@many
@given(images, st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_adaptive_pools_are_pytorchs(x: np.ndarray, size: tuple[int, int]) -> None:
    check(lambda t: ops.adaptive_max_pool2d(t, size), lambda t: F.adaptive_max_pool2d(t, size), x, exact=True)
    check(lambda t: ops.adaptive_avg_pool2d(t, size), lambda t: F.adaptive_avg_pool2d(t, size), x, exact=False)
