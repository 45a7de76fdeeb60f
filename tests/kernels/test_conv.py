"""im2col and its adjoint, and convolution in blocks, at drawn geometries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minires import kernels
from minires.kernels import ConvGeometry, col2im, im2col
from minires.kernels.cpu import conv as cpu
from minires.kernels.portable import conv as portable
from tests import reference
from tests.helpers import TOLERANCES, assert_f64

small = st.integers(1, 3)
pairs = st.tuples(small, small)


@st.composite
def convolutions(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...], ConvGeometry]:
    """Shapes of x and w, and a geometry whose four paddings may differ; depthwise is common."""
    groups, n, (kh, kw) = draw(small), draw(st.integers(0, 6)), draw(pairs)
    c, o = draw(st.sampled_from([(1, 1), (1, 1), (1, 2), (2, 1), (2, 3)]))
    h, w = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    geometry = ConvGeometry(draw(pairs), draw(st.tuples(*[st.integers(0, 2)] * 4)), draw(pairs), groups)
    assume(min(geometry.output_size((h, w), (kh, kw))) >= 1)
    return (n, h, w, c * groups), (kh, kw, c, o * groups), geometry


@given(convolutions())
def test_col2im_is_the_adjoint_of_im2col(drawn: Any) -> None:
    x_shape, w_shape, geometry = drawn
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape)
    cols = im2col(x, w_shape[:2], geometry)
    c = rng.standard_normal(cols.shape)
    left, right = np.vdot(cols, c), np.vdot(x, col2im(c, x_shape, w_shape[:2], geometry))
    assert left == pytest.approx(right, rel=1e-12, abs=1e-12)


@given(convolutions())
def test_im2col_and_col2im_are_the_loops(drawn: Any) -> None:
    x_shape, w_shape, geometry = drawn
    top, bottom, left, right = geometry.padding
    x = np.random.default_rng(0).standard_normal(x_shape)
    window = w_shape[:2], geometry.stride, ((top, bottom), (left, right)), geometry.dilation, geometry.groups
    cols = im2col(x, w_shape[:2], geometry)
    np.testing.assert_array_equal(cols, reference.im2col(x, *window))
    np.testing.assert_allclose(
        col2im(cols, x_shape, w_shape[:2], geometry), reference.col2im(cols, x_shape, *window), rtol=1e-14
    )


def test_overlapping_windows_are_added() -> None:
    x = np.ones((1, 4, 4, 1))
    cols = im2col(x, (3, 3), ConvGeometry())
    counts = col2im(cols, x.shape, (3, 3), ConvGeometry())[0, :, :, 0]
    np.testing.assert_array_equal(counts, np.outer([1, 2, 2, 1], [1, 2, 2, 1]))


@pytest.mark.parametrize("column_bytes", [1, 400, 8 << 20])
@given(drawn=convolutions())
def test_blocks_give_what_the_whole_batch_gives(column_bytes: int, drawn: Any) -> None:
    x_shape, w_shape, geometry = drawn
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    gy = rng.standard_normal((x_shape[0], *geometry.output_size(x_shape[1:3], w_shape[:2]), w_shape[3]))
    o, c = rng.standard_normal(gy.shape[3]), rng.standard_normal(x_shape[3])
    calls: list[tuple[str, Any]] = [
        *(("conv2d", lambda b=b: kernels.conv2d(x, w, geometry, b)) for b in (None, o)),
        *(("conv2d_grad_input", lambda b=b: kernels.conv2d_grad_input(gy, w, x_shape, geometry, b)) for b in (None, c)),
        ("conv2d_grad_weight", lambda: kernels.conv2d_grad_weight(gy, x, w_shape, geometry)),
    ]
    for name, call in calls:
        with kernels.use("portable"):
            want = call()
        with pytest.MonkeyPatch.context() as patch, kernels.use(**{name: "blocked"}):
            patch.setattr(cpu, "COLUMN_BYTES", column_bytes)
            assert_f64(call(), want, TOLERANCES["gemm"])


def test_blocks_cover_the_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "COLUMN_BYTES", 100)
    assert [(b.start, b.stop) for b in cpu.blocks(7, 40)] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert len(list(cpu.blocks(3, 1000))) == 3  # never less than an image
    assert list(cpu.blocks(0, 40)) == []


GROUPS = ConvGeometry((1, 1), (1, 1, 1, 1), (1, 1), 4)


@pytest.mark.parametrize("name", ["portable", "blocked"])
def test_depthwise_takes_no_columns(name: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """It goes through the window's places, and gives what the products of matrices one column wide give."""
    x, w, gy = rng.standard_normal((3, 5, 4, 4)), rng.standard_normal((3, 3, 1, 4)), rng.standard_normal((3, 5, 4, 4))
    x2 = np.repeat(x, 2, axis=3)
    wide = np.concatenate([w, np.zeros_like(w)], axis=2)  # a second channel in each group, of no weight
    want = [
        kernels.conv2d(x2, wide, GROUPS),
        kernels.conv2d_grad_input(gy, wide, x2.shape, GROUPS)[..., ::2],
        kernels.conv2d_grad_weight(gy, x2, wide.shape, GROUPS)[:, :, :1],
    ]
    for module in portable, cpu:
        monkeypatch.setattr(module, "im2col", None)
        monkeypatch.setattr(module, "col2im", None)
    with kernels.use(conv2d=name, conv2d_grad_input=name, conv2d_grad_weight=name):
        got = [
            kernels.conv2d(x, w, GROUPS),
            kernels.conv2d_grad_input(gy, w, x.shape, GROUPS),
            kernels.conv2d_grad_weight(gy, x, w.shape, GROUPS),
        ]
    for g, right in zip(got, want, strict=True):
        assert_f64(g, right, TOLERANCES["gemm"])


def test_geometries_of_equal_settings_are_one_key() -> None:
    assert len({ConvGeometry(), ConvGeometry((1, 1), (0, 0, 0, 0), (1, 1), 1), ConvGeometry(dilation=(2, 1))}) == 2
    assert ConvGeometry(dilation=(2, 3)).extent((3, 2)) == (5, 4)
