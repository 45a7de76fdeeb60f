"""Sums of two arrays; the error function and its complement, against Python's."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from minires.kernels import add, add_, erf, erfc, quiet, use
from minires.kernels.cpu import blocks

EDGES = [0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-20, 0.5, 4.0, 5.8, 5.93, 6.0, 26.5, 27.2, 27.3, 30.0, 1e308, np.inf]
PAIRS = pytest.mark.parametrize(("ours", "theirs"), [(erf, math.erf), (erfc, math.erfc)])


def points() -> np.ndarray:
    """The whole range, close to the seams of the three approximations above all."""
    rng = np.random.default_rng(0)
    seams = [np.nextafter(s, towards) for s in (0.5, 4.0) for towards in (-np.inf, np.inf)]
    return np.concatenate(
        [
            EDGES,
            np.negative(EDGES),
            seams,
            rng.uniform(-1, 1, 20_000),
            rng.uniform(0.4, 0.6, 20_000),
            rng.uniform(-6, 6, 20_000),
            rng.uniform(3.9, 4.1, 2_000),
            rng.uniform(-28, 28, 5_000),
            10 ** rng.uniform(-323, 2, 5_000),
        ]
    )


def ulps(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    return np.abs(got - want) / np.spacing(np.abs(want))


@PAIRS
def test_float64(ours: Callable[..., np.ndarray], theirs: Callable[[float], float]) -> None:
    x = points()
    got, want = ours(x), np.array([theirs(v) for v in x])
    assert np.abs(got - want).max() <= 1e-15
    assert ulps(got, want).max() <= (4 if ours is erf else 8)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


@PAIRS
def test_float32(ours: Callable[..., np.ndarray], theirs: Callable[[float], float]) -> None:
    with np.errstate(over="ignore", under="ignore"):
        x = points().astype(np.float32)
    got, want = ours(x), np.array([theirs(float(v)) for v in x]).astype(np.float32)
    assert got.dtype == np.float32
    assert ulps(got, want).max() <= (6 if ours is erf else 10)


@PAIRS
def test_float16_is_rounded_once(ours: Callable[..., np.ndarray], theirs: Callable[[float], float]) -> None:
    x = np.linspace(-4, 4, 1001).astype(np.float16)
    got, want = ours(x), np.array([theirs(float(v)) for v in x])
    assert got.dtype == np.float16
    assert np.abs(got - want).max() <= 0.5 * np.spacing(np.float16(1)) * 1.001


def test_special_values() -> None:
    assert erf(np.array([np.inf, -np.inf])).tolist() == [1, -1]
    assert erfc(np.array([np.inf, -np.inf, 0])).tolist() == [0, 2, 1]
    for kernel in (erf, erfc):
        assert np.isnan(kernel(np.array([np.nan]))).all()
        assert kernel(np.zeros((0, 3))).shape == (0, 3)
        assert kernel(np.float64(0.5)).shape == ()


def test_erf_is_odd() -> None:
    x = points()
    np.testing.assert_array_equal(erf(-x), -erf(x))


def test_both_are_monotone_across_the_seams() -> None:
    """Each step is 64 ulp of x, more than the error where the curve is not flat."""
    for seam in (0.5, 4.0):
        x = seam * (1 + np.arange(-200, 200) * 2.0**-46)
        assert (np.diff(erf(x)) >= 0).all()
        assert (np.diff(erfc(x)) <= 0).all()


def test_they_sum_to_1() -> None:
    x = np.linspace(-6, 6, 10_001)
    assert np.abs(erf(x) + erfc(x) - 1).max() <= 5e-16


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (300, 257), (2, 200, 300)])
def test_sums_round_once(shape: tuple[int, ...], dtype: type, rng: np.random.Generator) -> None:
    a, b = (np.asarray(100 * rng.standard_normal(shape), dtype) for _ in range(2))
    before, want = (a.copy(), b.copy()), np.asarray(a + b)
    np.testing.assert_array_equal(add(a, b), want, strict=True)
    np.testing.assert_array_equal(a, before[0])
    assert add_(a, b) is None
    np.testing.assert_array_equal(a, want, strict=True)
    np.testing.assert_array_equal(b, before[1])


@pytest.mark.parametrize("shape", [(7,), (3, 5)])
def test_sums_in_blocks(shape: tuple[int, ...], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 16)
    a, b = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    want = a + b
    with use(add="blocked", add_="blocked"):
        np.testing.assert_array_equal(add(a, b), want, strict=True)
        add_(a, b)
    np.testing.assert_array_equal(a, want, strict=True)


def test_sums_of_halves_overflow_to_infinity() -> None:
    a = np.full(3, 60_000, np.float16)
    with quiet():
        assert np.isinf(add(a, a)).all()
        add_(a, a.copy())
    assert np.isinf(a).all()


def test_sums_take_any_layout(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((30, 400)), rng.standard_normal((400, 30)).T
    want = a + b
    np.testing.assert_array_equal(add(a, b), want)
    add_(b, a)
    np.testing.assert_array_equal(b, want)
