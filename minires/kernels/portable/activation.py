"""Activations and their gradients. Every exponential is of a number that is not positive, so that none overflows."""

from __future__ import annotations

import math

from ...device import Array, array_module
from ..dispatch import kernel
from .elementwise import erfc


@kernel
def relu(x: Array) -> Array:
    """max(x, 0), element by element; NaN stays NaN."""
    return array_module(x).maximum(x, 0)


@kernel
def relu_grad(gy: Array, y: Array) -> Array:
    """gy where y = relu(x) let it through, else 0: the gradient at x = 0 is 0."""
    return array_module(gy).where(y <= 0, 0, gy)


@kernel
def leaky_relu(x: Array, slope: float) -> Array:
    """x where x > 0, else slope * x; NaN stays NaN."""
    return array_module(x).where(x > 0, x, slope * x)


@kernel
def leaky_relu_grad(gy: Array, x: Array, slope: float) -> Array:
    """gy where x > 0, else slope * gy: the gradient at x = 0 is slope."""
    return array_module(gy).where(x > 0, gy, slope * gy)


def _logistic(x: Array) -> tuple[Array, Array]:
    """1 / (1 + exp(-x)) and its derivative, which does not lose its digits where the first is nearly 1."""
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1, e) / (1 + e), e / ((1 + e) * (1 + e))


@kernel
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return _logistic(x)[0]


@kernel
def sigmoid_grad(gy: Array, y: Array) -> Array:
    """gy * y * (1 - y), for y = sigmoid(x)."""
    return gy * (y * (1 - y))


@kernel
def tanh_grad(gy: Array, y: Array) -> Array:
    """gy * (1 - y^2), for y = tanh(x)."""
    return gy * (1 - y * y)


@kernel
def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return x * _logistic(x)[0]


@kernel
def silu_grad(gy: Array, x: Array) -> Array:
    """gy * (s + x * s * (1 - s)), for s = sigmoid(x)."""
    s, slope = _logistic(x)
    return gy * (s + x * slope)


@kernel
def gelu(x: Array) -> Array:
    """x times the standard normal distribution's share below x: x * erfc(-x / sqrt(2)) / 2."""
    return 0.5 * x * erfc(-math.sqrt(0.5) * x)


@kernel
def gelu_grad(gy: Array, x: Array) -> Array:
    """gy * (share + x * density) of the standard normal distribution."""
    density = array_module(x).exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return gy * (0.5 * erfc(-math.sqrt(0.5) * x) + x * density)


def _cubic(x: Array) -> tuple[Array, Array]:
    """2u and its derivative, u = sqrt(2/pi) * (x + 0.044715 x^3): where (1 + tanh(u))/2 = sigmoid(2u) is x's share.

    x is held within 50: there the share is 0 or 1 already, and the cube of a large x would be infinite.
    """
    held = array_module(x).clip(x, -50, 50)
    square = held * held
    factor = 2 * math.sqrt(2 / math.pi)
    return factor * held * (1 + 0.044715 * square), factor * (1 + 3 * 0.044715 * square)


@kernel
def gelu_tanh(x: Array) -> Array:
    """GELU with its share approximated by x * (1 + tanh(u)) / 2, u being a cubic of x."""
    return x * _logistic(_cubic(x)[0])[0]


@kernel
def gelu_tanh_grad(gy: Array, x: Array) -> Array:
    """gy * (s + x * s * (1 - s) * d(2u)/dx), for s = sigmoid(2u)."""
    twice, rise = _cubic(x)
    s, slope = _logistic(twice)
    return gy * (s + x * (slope * rise))
