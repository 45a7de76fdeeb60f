"""The optimizers' updates, setting by setting, and what clipping is made of."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.kernels import adamw_, power_sum, scale_, sgd_
from minires.kernels.cpu import blocks
from tests import reference

SGD = list(product((0.0, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True), (False, True)))
ADAMW = list(product(((0.9, 0.999), (0.0, 0.5)), (1e-8, 0.1), (0.0, 0.1), (False, True), (False, True)))
TYPES = pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-13), (np.float32, 1e-5)])


def drawn(rng: np.random.Generator, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and gradients for ten steps; the last ones are smaller, so that AMSGrad has something to remember."""
    gradients = rng.uniform(-1, 1, (10, 3, 2)) * np.linspace(2, 0.1, 10).reshape(-1, 1, 1)
    return rng.uniform(1, 2, (3, 2)).astype(dtype), gradients.astype(dtype)


@pytest.mark.parametrize("settings", SGD, ids=str)
@TYPES
def test_ten_steps_of_sgd(rng: np.random.Generator, settings: tuple[Any, ...], dtype: type, rtol: float) -> None:
    start, gradients = drawn(rng, dtype)
    momentum, dampening, *others = settings
    w, velocity = start.copy(), np.zeros_like(start) if momentum else None
    for step, g in enumerate(gradients):
        kept = g.copy()
        sgd_(w, g, velocity, 0.02, momentum, dampening if step else 0.0, *others)
        np.testing.assert_array_equal(g, kept)
    assert w.dtype == dtype
    for place in np.ndindex(start.shape):
        steps = [float(g[place]) for g in gradients]
        assert w[place] == pytest.approx(reference.sgd(float(start[place]), steps, 0.02, *settings), rel=rtol)


@pytest.mark.parametrize("settings", ADAMW, ids=str)
@TYPES
def test_ten_steps_of_adamw(rng: np.random.Generator, settings: tuple[Any, ...], dtype: type, rtol: float) -> None:
    start, gradients = drawn(rng, dtype)
    w, first, second, largest = start.copy(), *(np.zeros_like(start) for _ in range(3))
    for step, g in enumerate(gradients, 1):
        kept = g.copy()
        adamw_(w, g, first, second, step, 0.02, *settings, max_exp_avg_sq=largest)
        np.testing.assert_array_equal(g, kept)
    assert {a.dtype for a in (w, first, second, largest)} == {np.dtype(dtype)}
    for place in np.ndindex(start.shape):
        steps = [float(g[place]) for g in gradients]
        assert w[place] == pytest.approx(reference.adamw(float(start[place]), steps, 0.02, *settings), rel=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_updates_in_blocks_are_the_whole_ones(
    rng: np.random.Generator, dtype: type, momentum: float, amsgrad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; without a state that is not there."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 40)
    start = [rng.uniform(1, 2, (7, 3)).astype(dtype) for _ in range(5)]
    results = []
    for name in ("portable", "blocked"):
        w, g, first, second, largest = (a.copy() for a in start)
        with kernels.use(sgd_=name, adamw_=name):
            sgd_(w, g, first if momentum else None, 0.02, momentum, 0.3, 0.1, False, False)
            adamw_(w, g, first, second, 3, 0.02, (0.9, 0.99), 1e-8, 0.1, amsgrad, False, largest if amsgrad else None)
        results.append((w, g, first, second, largest))
    for got, want in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)
    assert not np.array_equal(results[0][0], start[0])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (3, 4)], ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("power", [1.0, 2.0, 2.5, math.inf])
def test_power_sum(rng: np.random.Generator, shape: tuple[int, ...], dtype: type, power: float) -> None:
    g = np.asarray(rng.standard_normal(shape), dtype)
    entries = [abs(float(v)) for v in g.ravel()]
    want = max(entries, default=0.0) if power == math.inf else math.fsum(v**power for v in entries)
    got = power_sum(g, power)
    assert got.dtype == np.float64
    assert got == pytest.approx(want, rel=1e-14)


@pytest.mark.parametrize(("dtype", "largest"), [(np.float16, 65504.0), (np.float32, 3e38)])
def test_power_sum_does_not_overflow_in_narrow_types(dtype: type, largest: float) -> None:
    g = np.full(100, largest, dtype)
    assert math.sqrt(power_sum(g, 2.0)) == pytest.approx(10 * float(g[0]), rel=1e-14)


@pytest.mark.parametrize("power", [2.0, math.inf])
def test_power_sum_passes_nan_on(power: float) -> None:
    assert math.isnan(power_sum(np.array([1.0, math.nan, 2.0]), power))


@pytest.mark.parametrize("factor", [0.0, 1e-3, 1.0, 1e-45])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float16, 1e-3), (np.float32, 1e-7), (np.float64, 0.0)])
def test_scale(dtype: type, rtol: float, factor: float) -> None:
    """Also by what is 0 in the type of the products."""
    g = np.array([1.0, -3000.0, np.finfo(dtype).max], dtype)
    want = (g.astype(np.float64) * factor).astype(dtype)
    scale_(g, np.asarray(factor))
    assert g.dtype == dtype
    np.testing.assert_allclose(g, want, rtol=rtol, atol=0)


def test_state_is_written_in_place_and_float16_weights_too() -> None:
    """The dispatcher runs both kernels on float32 copies of the weights; the state is float32 already."""
    w, g = np.ones(2, np.float16), np.full(2, 0.5, np.float16)
    state = [np.zeros(2, np.float32) for _ in range(3)]
    sgd_(w, g, state[0], 0.25, 0.9, 0.0, 0.0, False, False)
    assert (w.tolist(), w.dtype, state[0].tolist()) == ([0.875, 0.875], np.float16, [0.5, 0.5])
    adamw_(w, g, *state[1:], 1, 0.25, (0.5, 0.5), 0.0, 0.0, False, False)
    assert w.tolist() == [0.625, 0.625]
    assert [a.tolist() for a in state[1:]] == [[0.25, 0.25], [0.125, 0.125]]
