"""Activations: gradients against differences of the values, in all memory layouts and far from 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minires import kernels
from minires.kernels.cpu import blocks
from tests.helpers import LAYOUTS

# Each kernel, and its gradient from x, or from y where that is what it takes
PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sigmoid": (kernels.sigmoid, lambda gy, x: kernels.sigmoid_grad(gy, kernels.sigmoid(x))),
    "tanh": (np.tanh, lambda gy, x: kernels.tanh_grad(gy, np.tanh(x))),
    "silu": (kernels.silu, kernels.silu_grad),
    "gelu": (kernels.gelu, kernels.gelu_grad),
    "gelu_tanh": (kernels.gelu_tanh, kernels.gelu_tanh_grad),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_gradient_is_the_slope(name: str) -> None:
    value, grad = PAIRS[name]
    x, step = np.linspace(-9, 9, 501), 1e-3
    slope = (8 * (value(x + step) - value(x - step)) - (value(x + 2 * step) - value(x - 2 * step))) / (12 * step)
    np.testing.assert_allclose(grad(np.ones_like(x), x), slope, rtol=0, atol=1e-11)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PAIRS)
def test_layouts(name: str, layout: str, rng: np.random.Generator) -> None:
    value, grad = PAIRS[name]
    x, gy = (LAYOUTS[layout](rng.standard_normal((5, 4, 3))) for _ in range(2))
    plain = [a.copy(order="C") for a in (gy, x)]
    np.testing.assert_allclose(value(x), value(plain[1]), rtol=1e-14)
    np.testing.assert_allclose(grad(gy, x), grad(*plain), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", PAIRS)
def test_no_kernel_overflows(name: str) -> None:
    """Outside of a Function, where nothing keeps a warning quiet."""
    value, grad = PAIRS[name]
    x = np.array([-1e18, -1e3, 1e3, 1e18], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(value(x)).all()
        assert np.isfinite(grad(np.ones_like(x), x)).all()


EDGES = [-math.nan, -math.inf, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, math.inf, math.nan]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block_bytes", [8, 72])
def test_relu_in_blocks_is_the_portable_one(block_bytes: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, for every pair of edges: what is not let through is 0 where gy is NaN or infinite, too."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    gy, y = (a.astype(dtype) for a in np.meshgrid(EDGES, EDGES))
    results = {}
    for name in ("portable", "blocked"):
        with kernels.use(relu=name, relu_grad=name):
            results[name] = kernels.relu(y), kernels.relu_grad(gy, y)
    for got, want in zip(results["blocked"], results["portable"], strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want)
    with kernels.use(relu_grad="blocked"):
        assert kernels.relu_grad(gy[:0], y[:0]).shape == (0, len(EDGES))
