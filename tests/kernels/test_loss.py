"""Softmax and cross-entropy kernels against each other, at drawn logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.kernels import cross_entropy, cross_entropy_grad, log_softmax, softmax

sizes = st.tuples(st.integers(1, 5), st.integers(1, 6))


@given(sizes, st.floats(0, 300))
def test_they_agree(size: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(0)
    z, target = scale * rng.standard_normal(size), rng.integers(0, size[1], size[0])
    rows, p, logs = np.arange(size[0]), softmax(z, 1), log_softmax(z, 1)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.exp(logs), p, rtol=1e-12)
    np.testing.assert_allclose(cross_entropy(z, target), -logs[rows, target], rtol=1e-14)
    onehot = np.eye(size[1])[target]
    gy = rng.standard_normal(size[0])
    np.testing.assert_allclose(cross_entropy_grad(gy, z, target), gy[:, None] * (p - onehot), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_any_axis(rng: np.random.Generator, axis: int) -> None:
    z = rng.standard_normal((2, 3, 4))
    for kernel in (softmax, log_softmax):
        last = np.moveaxis(kernel(np.ascontiguousarray(np.moveaxis(z, axis, -1)), 2), -1, axis)
        np.testing.assert_allclose(kernel(z, axis), last, rtol=1e-14)


def test_one_class_is_certain() -> None:
    z, target = np.full((3, 1), 7.0), np.zeros(3, dtype=int)
    assert cross_entropy(z, target).tolist() == [0, 0, 0]
    assert not cross_entropy_grad(np.ones(3), z, target).any()


def test_a_gradient_row_sums_to_zero_in_float32(rng: np.random.Generator) -> None:
    z = (50 * rng.standard_normal((64, 10))).astype(np.float32)
    g = cross_entropy_grad(np.ones(64, np.float32), z, rng.integers(0, 10, 64))
    np.testing.assert_allclose(g.sum(1, dtype=np.float64), 0, atol=1e-7)


@pytest.mark.parametrize("target", [0, 1])
def test_an_infinite_logit_is_nan_everywhere(target: int) -> None:
    z = np.array([[np.inf, 0.0, 0.0]])
    with np.errstate(invalid="ignore"):
        assert np.isnan(cross_entropy(z, np.array([target]))).all()
        assert np.isnan(cross_entropy_grad(np.ones(1), z, np.array([target]))).all()
        assert np.isnan(log_softmax(z, 1)).all()
