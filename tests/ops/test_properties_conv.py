"""Convolutions of drawn shapes, geometries, types and memory layouts, beside PyTorch's in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minires import Tensor, ops
from tests.helpers import laid_out
from tests.oracle import hwio, nchw, nhwc, oihw, torch
from tests.strategies import dtypes, layouts

many = settings(max_examples=100)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
# Inputs are small integers, so that no sum rounds: float32 and float64 results are PyTorch's to the bit, and so is
# every order of summing. float16 rounds once, beyond 2048.


@dataclass
class Drawn:
    """Shapes of images, weight and result, how the window moves, and how the numbers are held."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int
    dtype: np.dtype
    layouts: tuple[str, str, str]

    def arrays(self, *shapes: tuple[int, ...]) -> list[np.ndarray]:
        """Small integers of each shape."""
        rng = np.random.default_rng(0)
        values = [rng.integers(-4, 5, shape).astype(self.dtype) for shape in shapes]
        return [laid_out(a, layout) for a, layout in zip(values, self.layouts, strict=True)]

    @property
    def reach(self) -> list[int]:
        """Rows and columns of the image that windows reach."""
        axes = zip(self.y[1:3], self.stride, self.w[:2], self.dilation, self.padding, strict=True)
        return [(count - 1) * step + (k - 1) * d + 1 - sum(pads) for count, step, k, d, pads in axes]


@st.composite
def convolutions(draw: Any, equal_sides: bool = False) -> Drawn:
    groups, (kh, kw), stride, dilation = draw(st.integers(1, 3)), draw(pairs), draw(pairs), draw(pairs)
    n, h, w = draw(st.integers(0, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    c, o = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 3)]))
    top, bottom, left, right = draw(st.tuples(*[st.integers(0, 3)] * 4))
    padding = ((top, top), (left, left)) if equal_sides else ((top, bottom), (left, right))
    room = [s + sum(p) - (k - 1) * d - 1 for s, p, k, d in zip((h, w), padding, (kh, kw), dilation, strict=True)]
    assume(min(room) >= 0)
    out = [r // s + 1 for r, s in zip(room, stride, strict=True)]
    return Drawn(
        (n, h, w, c * groups), (kh, kw, c, o * groups), (n, *out, o * groups), stride, padding, dilation, groups,
        draw(dtypes), (draw(layouts), draw(layouts), draw(layouts)),
    )  # fmt: skip


def images(x: np.ndarray) -> Any:
    """(N, H, W, C) as PyTorch's, in float64; a copy, since PyTorch takes no arrays that are read-only."""
    return nchw(x.astype(np.float64))


def weights(w: np.ndarray) -> Any:
    return oihw(w.astype(np.float64))


def check(got: Any, want: Any) -> None:
    """`got` is the PyTorch result `want`, rounded once."""
    np.testing.assert_array_equal(got, want.astype(got.dtype))


@many
@given(convolutions())
def test_conv2d_is_pytorchs(drawn: Drawn) -> None:
    x, w, gy = drawn.arrays(drawn.x, drawn.w, drawn.y)
    ours = Tensor(x, requires_grad=True), Tensor(w, requires_grad=True)
    y = ops.conv2d(*ours, None, drawn.stride, drawn.padding, drawn.dilation, drawn.groups)
    y.backward(gy)
    theirs = images(x).requires_grad_(), weights(w).requires_grad_()
    padded = torch.nn.functional.pad(theirs[0], (*drawn.padding[1], *drawn.padding[0]))
    want = torch.nn.functional.conv2d(padded, theirs[1], None, drawn.stride, 0, drawn.dilation, drawn.groups)
    want.backward(images(gy))
    check(y.data, nhwc(want))
    check(ours[0].grad.data, nhwc(theirs[0].grad))
    check(ours[1].grad.data, hwio(theirs[1].grad))
    assert y.dtype == ours[0].grad.dtype == ours[1].grad.dtype == drawn.dtype


@many
@given(convolutions(equal_sides=True), st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_conv_transpose2d_is_pytorchs(drawn: Drawn, more: tuple[int, int]) -> None:
    """From results of the drawn convolution to images, with as much output padding as PyTorch allows."""
    more = tuple(min(m, max(s, d) - 1) for m, s, d in zip(more, drawn.stride, drawn.dilation, strict=True))
    size = [reach + m for reach, m in zip(drawn.reach, more, strict=True)]
    assume(min(size) >= 1)
    (top, _), (left, _) = drawn.padding
    around = drawn.stride, (top, left), more, drawn.groups, drawn.dilation
    y, w, gx = drawn.arrays(drawn.y, drawn.w, (drawn.x[0], *size, drawn.x[3]))
    ours = Tensor(y, requires_grad=True), Tensor(w, requires_grad=True)
    x = ops.conv_transpose2d(*ours, None, *around)
    x.backward(gx)
    theirs = images(y).requires_grad_(), weights(w).requires_grad_()
    want = torch.nn.functional.conv_transpose2d(*theirs, None, *around)
    want.backward(images(gx))
    check(x.data, nhwc(want))
    check(ours[0].grad.data, nhwc(theirs[0].grad))
    check(ours[1].grad.data, hwio(theirs[1].grad))


@many
@given(convolutions(equal_sides=True))
def test_conv_transpose2d_is_the_adjoint_of_conv2d(drawn: Drawn) -> None:
    """<conv2d(x), y> == <x, conv_transpose2d(y)>, exactly. Rows that no window reaches are its output padding."""
    (top, _), (left, _) = drawn.padding
    drawn.dtype = np.dtype(np.float64)
    x, w, y = drawn.arrays(drawn.x, drawn.w, drawn.y)
    rest = tuple(size - reach for size, reach in zip(drawn.x[1:3], drawn.reach, strict=True))
    forth = ops.conv2d(x, w, None, drawn.stride, drawn.padding, drawn.dilation, drawn.groups)
    back = ops.conv_transpose2d(y, w, None, drawn.stride, (top, left), rest, drawn.groups, drawn.dilation)
    assert back.shape == drawn.x
    assert np.sum(forth.data * y) == np.sum(x * back.data)


@many
@given(convolutions())
def test_same_pads_as_tensorflow_does(drawn: Drawn) -> None:
    """ceil(size / stride) windows; no padding more than they need; as much before as after, or one less."""
    drawn.dtype = np.dtype(np.float64)
    x, w, _ = drawn.arrays(drawn.x, drawn.w, drawn.y)
    settings = drawn.stride, "same", drawn.dilation, drawn.groups
    y = ops.conv2d(Tensor(x, requires_grad=True), w, None, *settings)
    top, bottom, left, right = y.node.geometry.padding
    for axis, (before, after) in enumerate([(top, bottom), (left, right)]):
        size, stride = drawn.x[axis + 1], drawn.stride[axis]
        count, extent = y.shape[axis + 1], (drawn.w[axis] - 1) * drawn.dilation[axis] + 1
        assert count == -(-size // stride)
        assert before + after == max(0, (count - 1) * stride + extent - size)
        assert after - before in (0, 1)
    explicit = ops.conv2d(x, w, None, drawn.stride, ((top, bottom), (left, right)), drawn.dilation, drawn.groups)
    np.testing.assert_array_equal(y.data, explicit.data)
