"""Softmax and loss kernels against each other, at drawn logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.kernels import (
    bce_with_logits,
    bce_with_logits_grad,
    bce_with_logits_grad_target,
    cross_entropy,
    cross_entropy_grad,
    log_softmax,
    soft_cross_entropy,
    soft_cross_entropy_grad,
    softmax,
    squared_error,
    squared_error_grad,
)

sizes = st.tuples(st.integers(1, 5), st.integers(1, 6))


@given(sizes, st.floats(0, 300))
def test_they_agree(size: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(0)
    z, target = scale * rng.standard_normal(size), rng.integers(0, size[1], size[0])
    rows, p, logs = np.arange(size[0]), softmax(z, 1), log_softmax(z, 1)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-14)
    np.testing.assert_allclose(np.exp(logs), p, rtol=1e-12)
    np.testing.assert_allclose(cross_entropy(z, target, None), -logs[rows, target], rtol=1e-14)
    onehot = np.eye(size[1])[target]
    gy, weights = rng.standard_normal(size[0]), rng.random(size[0])
    want = gy[:, None] * (p - onehot)
    np.testing.assert_allclose(cross_entropy_grad(gy, z, target, None), want, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(cross_entropy(z, target, weights), -logs[rows, target] * weights, rtol=1e-14)
    scaled = cross_entropy_grad(gy, z, target, weights)
    np.testing.assert_allclose(scaled, want * weights[:, None], rtol=1e-12, atol=1e-15)


@given(sizes, st.floats(0, 300))
def test_soft_targets_agree(size: tuple[int, int], scale: float) -> None:
    """q need not sum to 1, and one row is all zeros."""
    rng = np.random.default_rng(0)
    z, q, gy = scale * rng.standard_normal(size), rng.random(size), rng.standard_normal(size[0])
    q[0] = 0
    want = -(q * log_softmax(z, 1)).sum(1)
    np.testing.assert_allclose(soft_cross_entropy(z, q), want, rtol=1e-13)
    want = gy[:, None] * (softmax(z, 1) * q.sum(1, keepdims=True) - q)
    np.testing.assert_allclose(soft_cross_entropy_grad(gy, z, q), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("q", [[1, 1, -1.5], [1, -1, 0]])
def test_negative_targets_are_mere_arithmetic(rng: np.random.Generator, q: list[float]) -> None:
    """Two entries above half the row's sum, which only negative ones allow, must not both take "minus the others"."""
    z, row = rng.standard_normal((1, 3)), np.array([q])
    np.testing.assert_allclose(soft_cross_entropy(z, row), -(row * log_softmax(z, 1)).sum(1), rtol=1e-13)
    want = softmax(z, 1) * row.sum() - row
    np.testing.assert_allclose(soft_cross_entropy_grad(np.ones(1), z, row), want, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_any_axis(rng: np.random.Generator, axis: int) -> None:
    z = rng.standard_normal((2, 3, 4))
    for kernel in (softmax, log_softmax):
        last = np.moveaxis(kernel(np.ascontiguousarray(np.moveaxis(z, axis, -1)), 2), -1, axis)
        np.testing.assert_allclose(kernel(z, axis), last, rtol=1e-14)


def test_one_class_is_certain() -> None:
    z, target = np.full((3, 1), 7.0), np.zeros(3, dtype=int)
    assert cross_entropy(z, target, None).tolist() == [0, 0, 0]
    assert not cross_entropy_grad(np.ones(3), z, target, None).any()
    assert soft_cross_entropy(z, np.ones((3, 1))).tolist() == [0, 0, 0]
    assert not soft_cross_entropy_grad(np.ones(3), z, np.ones((3, 1))).any()


def test_a_gradient_row_sums_to_zero_in_float32(rng: np.random.Generator) -> None:
    z, target = (50 * rng.standard_normal((64, 10))).astype(np.float32), rng.integers(0, 10, 64)
    one, q = np.ones(64, np.float32), np.float32(0.9) * np.eye(10, dtype=np.float32)[target] + np.float32(0.01)
    for g in (cross_entropy_grad(one, z, target, None), soft_cross_entropy_grad(one, z, q)):
        np.testing.assert_allclose(g.sum(1, dtype=np.float64), 0, atol=1e-7)


@pytest.mark.parametrize("target", [0, 1])
def test_an_infinite_logit_is_nan_everywhere(target: int) -> None:
    z, q = np.array([[np.inf, 0.0, 0.0]]), np.eye(3)[[target]]
    with np.errstate(invalid="ignore"):
        assert np.isnan(cross_entropy(z, np.array([target]), None)).all()
        assert np.isnan(cross_entropy_grad(np.ones(1), z, np.array([target]), None)).all()
        assert np.isnan(soft_cross_entropy(z, q)).all()
        assert np.isnan(soft_cross_entropy_grad(np.ones(1), z, q)).all()
        assert np.isnan(log_softmax(z, 1)).all()


def test_what_does_not_count_is_exactly_zero() -> None:
    z, scale = np.full((2, 3), np.nan), np.array([0.0, 1.0])
    target, q = np.zeros(2, int), np.zeros((2, 3))
    with np.errstate(invalid="ignore"):
        assert cross_entropy(z, target, scale)[0] == 0
        assert not cross_entropy_grad(np.ones(2), z, target, scale)[0].any()
        assert not soft_cross_entropy(z, q).any()
        assert not soft_cross_entropy_grad(np.ones(2), z, q).any()


@given(st.floats(-30, 30), st.floats(0, 1), st.floats(0.125, 8))
def test_binary_gradients_are_slopes(x: float, target: float, pos_weight: float) -> None:
    a, t, w, one = (np.array([v]) for v in (x, target, pos_weight, 1.0))
    gx, gtarget = bce_with_logits_grad(one, a, t, w), bce_with_logits_grad_target(one, a, w)
    e = 1e-4
    slopes = [
        (bce_with_logits(a + e, t, w) - bce_with_logits(a - e, t, w)) / (2 * e),
        (bce_with_logits(a, t + e, w) - bce_with_logits(a, t - e, w)) / (2 * e),
    ]
    np.testing.assert_allclose([gx, gtarget], slopes, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("weight", [None, np.ones(3)])
def test_binary_is_the_plain_formula(rng: np.random.Generator, weight: Any) -> None:
    x, t = rng.standard_normal((4, 3)), rng.random((4, 3))
    p = 1 / (1 + np.exp(-x))
    want = -t * np.log(p) - (1 - t) * np.log(1 - p)
    np.testing.assert_allclose(bce_with_logits(x, t, weight), want, rtol=1e-14)
    np.testing.assert_allclose(bce_with_logits_grad(np.ones((4, 3)), x, t, weight), p - t, rtol=1e-13)


def test_squares_round_once_in_float16() -> None:
    x, t = np.float16([1, 2.001, 300]), np.float16([0.999, 2, 100])
    d = x.astype(np.float64) - t
    np.testing.assert_array_equal(squared_error(x, t), (d * d).astype(np.float16))
    np.testing.assert_array_equal(squared_error_grad(np.float16([1, 1, 1]), x, t), (2 * d).astype(np.float16))
