"""Batch norm in blocks of rows, group norm as batch norm, at drawn shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires import kernels, threads
from minires.kernels.cpu import blocks
from tests import reference
from tests.helpers import TOLERANCES, assert_f64

shapes = st.tuples(st.integers(1, 70), st.integers(1, 5))


def calls(shape: tuple[int, int], add: bool, relu: bool) -> dict[str, Any]:
    """Each kernel on drawn arrays."""
    rng = np.random.default_rng(0)
    x, gy, z = (rng.standard_normal(shape) for _ in range(3))
    gamma, beta = rng.standard_normal((2, shape[1]))
    with kernels.use("portable"):
        hi, lo, _, invstd = kernels.batch_norm_statistics(x, 1e-2)
    return {
        "batch_norm_statistics": lambda: kernels.batch_norm_statistics(x, 1e-2),
        "batch_norm_apply": lambda: (
            kernels.batch_norm_apply(x, hi, lo, invstd, gamma, beta, z if add else None, relu),
        ),
        "batch_norm_grad": lambda: kernels.batch_norm_grad(gy, x, hi, lo, invstd, gamma),
        "batch_norm_relu_grad": lambda: (lambda gradients, g: (*gradients, *([g] if add else [])))(
            *kernels.batch_norm_relu_grad(gy, np.maximum(z, 0), x, hi, lo, invstd, gamma, keep=add)
        ),
    }


# Wide rows that never, sometimes and always hold all rows, in blocks of one of them, of some and of all
CUTS = pytest.mark.parametrize(("width", "block_bytes"), [(1, 1), (1, 300), (20, 1), (20, 1000), (8192, 1 << 18)])


@CUTS
@given(shape=shapes, add=st.booleans(), relu=st.booleans())
def test_blocks_give_what_the_whole_gives(
    width: int, block_bytes: int, shape: tuple[int, int], add: bool, relu: bool
) -> None:
    for name, call in calls(shape, add, relu).items():
        with kernels.use("portable"):
            want = call()
        with pytest.MonkeyPatch.context() as patch, kernels.use(**{name: "blocked"}):
            patch.setattr(blocks, "WIDTH", width)
            patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
            got = call()
        for index, (g, w) in enumerate(zip(got, want, strict=True)):
            if (name, index) == ("batch_norm_statistics", 1):  # lo, what rounding took from hi
                g, w = got[0] + g, want[0] + w
            assert_f64(g, w, TOLERANCES["norm"])


@pytest.mark.parametrize("relu", [False, True])
def test_results_do_not_depend_on_threads(relu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, whichever of two threads takes which of many blocks, and whether there are two."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 13)
    monkeypatch.setattr(blocks, "WIDTH", 256)
    rng = np.random.default_rng(0)
    x, z, gy = (rng.standard_normal((3001, 24)).astype(np.float32) for _ in range(3))
    gamma, beta = rng.standard_normal((2, 24)).astype(np.float32)

    def results() -> list[np.ndarray]:
        hi, lo, variance, invstd = kernels.batch_norm_statistics(x, 1e-5)
        y = kernels.batch_norm_apply(x, hi, lo, invstd, gamma, beta, z, relu)
        gradients, g = kernels.batch_norm_relu_grad(gy, y, x, hi, lo, invstd, gamma, keep=relu)
        group = kernels.group_norm(x.reshape(3001, 4, 3, 2), gamma[:6].reshape(3, 2), beta[:6].reshape(3, 2), 1e-5)
        own = kernels.group_norm_grad(
            gy.reshape(3001, 4, 3, 2), x.reshape(3001, 4, 3, 2), *group[1:], gamma[:6].reshape(3, 2)
        )
        return [hi, lo, variance, invstd, y, *gradients, *([] if g is None else [g]), *group, *own]

    before = threads.get_num_threads()
    try:
        threads.set_num_threads(1)
        want = results()
        threads.set_num_threads(2)
        for _ in range(20):
            for a, b in zip(results(), want, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("ratio", [0.0, 1e3, 1e6])
def test_statistics_where_the_sample_misses_the_mean(ratio: float) -> None:
    """A block of rows far from all others, of which the sample has none, and a sample that has only such rows."""
    rng = np.random.default_rng(0)
    for far in (slice(1, 400), slice(None, None, 79)):  # 10,000 rows, 128 side by side: each 79th is in the sample
        x = rng.standard_normal((10_000, 64))
        x[far] += 30
        x = (x + ratio).astype(np.float32)
        hi, lo, variance, _ = kernels.batch_norm_statistics(x, 0.0)
        exact = x.astype(np.float64)
        deviation = exact.std(axis=0)
        assert np.max(np.abs(hi.astype(np.float64) + lo - exact.mean(axis=0)) / deviation) < 2e-7
        np.testing.assert_allclose(variance, exact.var(axis=0), rtol=1e-6)


@given(shape=shapes, mean=st.floats(-1e6, 1e6, width=32))
def test_statistics_are_exact_in_float32(shape: tuple[int, int], mean: float) -> None:
    x = (mean + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    means, variances = reference.moments(x.astype(np.float64))
    for variant in ("portable", "blocked"):
        with kernels.use(batch_norm_statistics=variant):
            hi, lo, variance, invstd = kernels.batch_norm_statistics(x, 1e-2)
        assert {a.dtype for a in (hi, lo, variance, invstd)} == {np.dtype(np.float32)}
        np.testing.assert_allclose(hi.astype(np.float64) + lo, means, rtol=1e-13, atol=2e-7)
        np.testing.assert_allclose(variance, variances, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(invstd, 1 / np.sqrt(variances + 1e-2), rtol=1e-6)


views = st.tuples(*(st.integers(1, 4) for _ in range(4)))


@given(view=views, mean=st.sampled_from([0.0, 3.0, -1e3]))
def test_a_group_of_an_example_is_a_column_of_batch_norm(view: tuple[int, int, int, int], mean: float) -> None:
    """x (N, S, G, D) as (S*D, N*G), normalised by batch norm without weights, then scaled and shifted."""
    n, s, g, d = view
    rng = np.random.default_rng(0)
    x, gy, (gamma, beta) = mean + rng.standard_normal(view), rng.standard_normal(view), rng.standard_normal((2, g, d))

    def columns(a: np.ndarray) -> np.ndarray:
        return a.transpose(1, 3, 0, 2).reshape(s * d, n * g)

    hi, lo, _, invstd = kernels.batch_norm_statistics(columns(x), 1e-2)
    one = np.ones(n * g)
    xhat = kernels.batch_norm_apply(columns(x), hi, lo, invstd, one, 0 * one, None, False)
    y, *statistics = kernels.group_norm(x, gamma, beta, 1e-2)
    # 1e-10: the residual mean and variance of one value, about 1e-13 at a mean of 1e3, times invstd
    np.testing.assert_allclose(columns((y - beta) / gamma), xhat, rtol=1e-10, atol=1e-10)
    assert all(a.shape == (n, 1, g, 1) for a in statistics)
    gx, ggamma, gbeta = kernels.group_norm_grad(gy, x, *statistics, gamma)
    want = kernels.batch_norm_grad(columns(gy * gamma), columns(x), hi, lo, invstd, one)
    np.testing.assert_allclose(columns(gx), want.x, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(ggamma, (gy * (y - beta) / gamma).sum((0, 1)), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gbeta, gy.sum((0, 1)), rtol=1e-12, atol=1e-12)


def test_gradients_of_float16_stay_in_float32() -> None:
    """Their owner rounds each to the type of what it is the gradient of."""
    x, one = np.ones((2, 3), np.float16), np.ones(3, np.float32)
    statistics = kernels.batch_norm_statistics(x, 1e-5)
    assert {a.dtype for a in statistics} == {np.dtype(np.float32)}
    for gradients in (
        kernels.batch_norm_grad(x, x, statistics.hi, statistics.lo, statistics.invstd, one),
        kernels.batch_norm_eval_grad(x, x, one, one, one, 1e-5),
        kernels.group_norm_grad(
            x[:, None, None], x[:, None, None], *(np.zeros((2, 1, 1, 1), "f") for _ in range(3)), one[None]
        ),
    ):
        assert {a.dtype for a in gradients if a is not None} == {np.dtype(np.float32)}


def test_evaluation_without_input_has_no_gradient_of_the_weight() -> None:
    gy, one = np.ones((2, 3)), np.ones(3)
    gx, ggamma, gbeta = kernels.batch_norm_eval_grad(gy, None, one, one, one, 0.0)
    assert ggamma is None
    np.testing.assert_array_equal(gx, gy)
    np.testing.assert_array_equal(gbeta, 2 * one)


@pytest.mark.parametrize("block_bytes", [1, 300, 1 << 20])
@given(view=views, dtype=st.sampled_from([np.float32, np.float64]))
def test_blocks_of_examples_give_what_the_whole_gives(
    block_bytes: int, view: tuple[int, int, int, int], dtype: Any
) -> None:
    """To the bit, but for the sums over examples."""
    rng = np.random.default_rng(0)
    x, gy, (gamma, beta) = (rng.standard_normal(s).astype(dtype) for s in (view, view, (2, *view[2:])))
    with kernels.use("portable"):
        whole = kernels.group_norm(x, gamma, beta, 1e-2)
        gradients = kernels.group_norm_grad(gy, x, *whole[1:], gamma)
    with (
        pytest.MonkeyPatch.context() as patch,
        kernels.use(group_norm="blocked", group_norm_grad="blocked"),
    ):
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        got = kernels.group_norm(x, gamma, beta, 1e-2)
        blocked = kernels.group_norm_grad(gy, x, *whole[1:], gamma)
    for a, b in zip((*got, blocked.x), (*whole, gradients.x), strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_array_equal(a, b)
    for a, b in zip(blocked[1:], gradients[1:], strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("variant", ["portable", "blocked"])
@pytest.mark.parametrize("view", [(2, 0, 3, 1), (0, 4, 3, 1)])
def test_groups_of_nothing_have_mean_0(variant: str, view: tuple[int, ...]) -> None:
    x, one = np.ones(view), np.ones((3, 1))
    with kernels.use(group_norm=variant, group_norm_grad=variant):
        y, hi, lo, invstd = kernels.group_norm(x, one, one, 0.25)
        gx, *sums = kernels.group_norm_grad(x, x, hi, lo, invstd, one)
    assert y.shape == gx.shape == view
    assert (not hi.any(), not lo.any(), (invstd == 2).all()) == (True, True, True)
    assert not any(total.any() for total in sums)
