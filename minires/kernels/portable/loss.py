"""Softmax and cross-entropy that keep their digits when one logit is far above the others."""

from __future__ import annotations

from ...device import Array, array_module
from ..dispatch import kernel
from .reduce import sum_axes


def _shifted(z: Array, axis: int) -> tuple[Array, Array, Array]:
    """z - max, the place of the maximum (one-hot, the first of equals), and the sum of exp(z - max) over the others.

    The maximum's own exp(0) = 1 is kept apart: 1 + s rounds away an s below 1e-7, log1p(s) does not.
    """
    xp = array_module(z)
    top = xp.expand_dims(z.argmax(axis=axis), axis)
    places = xp.arange(z.shape[axis]).reshape([-1 if a == axis % z.ndim else 1 for a in range(z.ndim)])
    is_top = places == top
    shifted = z - z.max(axis=axis, keepdims=True)
    # the maximum's own shifted value is 0, or NaN where the maximum is infinite: all of its row is NaN then
    others = sum_axes(xp.where(is_top, shifted, xp.exp(shifted)), (axis % z.ndim,), keepdims=True)
    return shifted, is_top, others


@kernel
def softmax(z: Array, axis: int) -> Array:
    """exp(z) / sum(exp(z)) along `axis`."""
    xp = array_module(z)
    if z.size == 0:
        return z.copy()
    e = xp.exp(z - z.max(axis=axis, keepdims=True))
    return e / sum_axes(e, (axis % z.ndim,), keepdims=True)


@kernel
def softmax_grad(gy: Array, y: Array, axis: int) -> Array:
    """The gradient of softmax's z: y * (gy - sum(gy * y)), for y = softmax(z)."""
    return y * (gy - sum_axes(gy * y, (axis % y.ndim,), keepdims=True))


@kernel
def log_softmax(z: Array, axis: int) -> Array:
    """log(softmax(z)) = (z - max) - log1p(sum of exp(z - max) over all but the maximum), along `axis`."""
    if z.size == 0:
        return z.copy()
    shifted, _, others = _shifted(z, axis)
    return shifted - array_module(z).log1p(others)


@kernel
def log_softmax_grad(gy: Array, y: Array, axis: int) -> Array:
    """The gradient of log_softmax's z: gy - exp(y) * sum(gy), for y = log_softmax(z)."""
    return gy - array_module(y).exp(y) * sum_axes(gy, (axis % y.ndim,), keepdims=True)


@kernel
def cross_entropy(z: Array, target: Array, scale: Array | None) -> Array:
    """-log_softmax(z)[target] * scale for each row of z (N, C), target and scale (N,): (N,). A scale of 0 gives 0."""
    xp = array_module(z)
    if len(z) == 0:
        return xp.zeros(0, dtype=z.dtype)
    shifted, _, others = _shifted(z, 1)
    losses = xp.log1p(others[:, 0]) - shifted[xp.arange(len(z)), target]
    return losses if scale is None else xp.where(scale == 0, 0, losses * scale)


@kernel
def cross_entropy_grad(gy: Array, z: Array, target: Array, scale: Array | None) -> Array:
    """The gradient (N, C) of cross_entropy's z, for gy (N,): gy * scale * (softmax(z) - onehot(target)).

    The target's entry is minus the sum of the others, not p - 1, which is 0 once p rounds to 1.
    """
    xp = array_module(z)
    if len(z) == 0:
        return xp.zeros(z.shape, dtype=z.dtype)
    shifted, _, others = _shifted(z, 1)
    p = xp.exp(shifted) / (1 + others)
    is_target = xp.arange(z.shape[1]) == target[:, None]
    p = xp.where(is_target, 0, p)
    g = xp.where(is_target, -sum_axes(p, (1,), keepdims=True), p)
    if scale is None:
        return gy[:, None] * g
    return xp.where(scale[:, None] == 0, 0, (gy * scale)[:, None] * g)  # NaN * 0 is NaN: an ignored row must not leak


@kernel
def soft_cross_entropy(z: Array, q: Array) -> Array:
    """-sum(q * log_softmax(z)) for each row of z and q (N, C), q >= 0: (N,). Where q is 0, z does not count."""
    xp = array_module(z)
    if z.size == 0:
        return xp.zeros(len(z), dtype=z.dtype)
    shifted, _, others = _shifted(z, 1)
    total = sum_axes(q, (1,))
    at_targets = sum_axes(xp.where(q == 0, 0, q * shifted), (1,))
    return xp.where(total == 0, 0, total * xp.log1p(others[:, 0])) - at_targets


@kernel
def soft_cross_entropy_grad(gy: Array, z: Array, q: Array) -> Array:
    """The gradient (N, C) of soft_cross_entropy's z, for gy (N,): gy * (softmax(z) * sum(q) - q).

    An entry with more than half of its row's q is minus the sum of the others: the difference would cancel once its p
    is near 1.
    """
    xp = array_module(z)
    if z.size == 0:
        return xp.zeros(z.shape, dtype=z.dtype)
    shifted, _, others = _shifted(z, 1)
    total, mass = sum_axes(q, (1,), keepdims=True), sum_axes(xp.abs(q), (1,), keepdims=True)
    g = xp.exp(shifted) / (1 + others) * total - q
    is_main = 2 * q > mass
    g = xp.where(is_main, -sum_axes(xp.where(is_main, 0, g), (1,), keepdims=True), g)
    return xp.where(mass == 0, 0, gy[:, None] * g)


@kernel
def squared_error(x: Array, target: Array) -> Array:
    """(x - target)^2."""
    d = x - target
    return d * d


@kernel
def squared_error_grad(gy: Array, x: Array, target: Array) -> Array:
    """The gradient of squared_error's x: 2 * gy * (x - target). The target's is its negative."""
    return 2 * gy * (x - target)


@kernel
def bce_with_logits(x: Array, target: Array, pos_weight: Array | None) -> Array:
    """pos_weight * target * softplus(-x) + (1 - target) * softplus(x), softplus(v) = log(1 + exp(v))."""
    xp = array_module(x)
    rest = xp.log1p(xp.exp(-xp.abs(x)))
    positive = target * (xp.maximum(-x, 0) + rest)
    negative = (1 - target) * (xp.maximum(x, 0) + rest)
    return (positive if pos_weight is None else pos_weight * positive) + negative


@kernel
def bce_with_logits_grad(gy: Array, x: Array, target: Array, pos_weight: Array | None) -> Array:
    """The gradient of bce_with_logits' x: gy * ((1 - target) * p - pos_weight * target * (1 - p)), p = sigmoid(x).

    p and 1 - p are made one by one: neither rounds to 0.
    """
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))
    large, small = 1 / (1 + e), e / (1 + e)
    p, not_p = xp.where(x > 0, large, small), xp.where(x > 0, small, large)
    positive = target * not_p
    return gy * ((1 - target) * p - (positive if pos_weight is None else pos_weight * positive))


@kernel
def bce_with_logits_grad_target(gy: Array, x: Array, pos_weight: Array | None) -> Array:
    """The gradient of bce_with_logits' target: gy * (pos_weight * softplus(-x) - softplus(x)), or -gy * x."""
    if pos_weight is None:
        return -gy * x
    xp = array_module(x)
    rest = xp.log1p(xp.exp(-xp.abs(x)))
    return gy * (pos_weight * (xp.maximum(-x, 0) + rest) - (xp.maximum(x, 0) + rest))
