"""Activations: kinks, extremes, dtypes, bad input."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError
from tests.helpers import value_and_gradients

NAN = float("nan")
gelu_tanh = partial(ops.gelu, approximate="tanh")
SMOOTH = [ops.sigmoid, ops.tanh, ops.silu, ops.gelu, gelu_tanh]


def test_a_slope_of_numpy_does_not_widen() -> None:
    assert ops.leaky_relu(Tensor([1.0]), np.float64(0.5)).dtype == np.float32


@pytest.mark.parametrize("op", [ops.leaky_relu, *SMOOTH])
def test_nan_stays_nan(op: Any) -> None:
    y = op(Tensor([NAN, 1.0]))
    assert np.isnan(y.tolist()).tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_large_inputs_saturate(dtype: str) -> None:
    """No infinity, no NaN, no warning, up to the largest number; the gradient too."""
    big = float(np.finfo(dtype).max)
    for op, below, above, at in (
        (ops.sigmoid, 0, 1, 0.5), (ops.tanh, -1, 1, 0), (ops.silu, 0, big, 0), (ops.gelu, 0, big, 0),
        (gelu_tanh, 0, big, 0),
    ):  # fmt: skip
        x = Tensor(np.array([-big, 0, big], dtype), requires_grad=True)
        y = op(x)
        y.backward(np.ones(3, dtype))
        assert y.tolist() == [below, at, above]
        assert x.grad.tolist() == [0, x.grad.tolist()[1], 1 if above == big else 0]
        assert 0.2 < x.grad.tolist()[1] <= 1


def test_sigmoid_keeps_its_digits_far_below_zero() -> None:
    x = np.array([-700.0, -100.0, -36.0])
    np.testing.assert_allclose(ops.sigmoid(x).data, np.exp(x), rtol=3e-16)


def test_gelu_keeps_its_digits_far_below_zero() -> None:
    """1 + erf(x/sqrt(2)) would be 0 below -8.3, and would have lost all digits before."""
    for v in (-3.0, -6.0, -9.0, -20.0, -37.0):
        want = v * math.erfc(-v / math.sqrt(2)) / 2
        y, gx = value_and_gradients(ops.gelu, [v])
        assert abs(y[0] - want) <= 3e-13 * abs(want)  # erfc multiplies the rounding of its argument, by v^2
        want = math.erfc(-v / math.sqrt(2)) / 2 + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi)
        assert abs(gx[0] - want) <= 3e-13 * abs(want)


def test_gelu_has_two_formulas() -> None:
    x = Tensor(np.linspace(-4, 4, 81))
    difference = np.abs(ops.gelu(x).data - gelu_tanh(x).data).max()
    assert 1e-4 < difference < 1e-3
    with pytest.raises(ArgumentError, match="gelu: approximate must be 'none' or 'tanh', not 'erf'"):
        ops.gelu(x, "erf")


def test_integers() -> None:
    """As in PyTorch, sigmoid and tanh make float32 of integers, and the others refuse them."""
    for dtype in ("uint8", "int64", "bool"):
        x = np.array([0, 1], dtype)
        for op, want in ((ops.sigmoid, [0.5, 0.7310586]), (ops.tanh, [0, 0.7615942])):
            y = op(x)
            assert y.dtype == np.float32
            np.testing.assert_allclose(y.data, want, rtol=1e-6)
        for op in (ops.leaky_relu, ops.silu, ops.gelu):
            with pytest.raises(DTypeError, match=f"{op.__name__}: input must be of a floating type, but input is"):
                op(x)
