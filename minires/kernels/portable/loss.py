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
def log_softmax(z: Array, axis: int) -> Array:
    """log(softmax(z)) = (z - max) - log1p(sum of exp(z - max) over all but the maximum), along `axis`."""
    if z.size == 0:
        return z.copy()
    shifted, _, others = _shifted(z, axis)
    return shifted - array_module(z).log1p(others)


@kernel
def cross_entropy(z: Array, target: Array) -> Array:
    """-log_softmax(z)[target] for each row of z (N, C) and target (N,): (N,)."""
    xp = array_module(z)
    if len(z) == 0:
        return xp.zeros(0, dtype=z.dtype)
    shifted, _, others = _shifted(z, 1)
    return xp.log1p(others[:, 0]) - shifted[xp.arange(len(z)), target]


@kernel
def cross_entropy_grad(gy: Array, z: Array, target: Array) -> Array:
    """The gradient (N, C) of cross_entropy's z, for gy (N,): gy * (softmax(z) - onehot(target)).

    The target's entry is minus the sum of the others, not p - 1, which is 0 once p rounds to 1.
    """
    xp = array_module(z)
    if len(z) == 0:
        return xp.zeros(z.shape, dtype=z.dtype)
    shifted, _, others = _shifted(z, 1)
    p = xp.exp(shifted) / (1 + others)
    is_target = xp.arange(z.shape[1]) == target[:, None]
    p = xp.where(is_target, 0, p)
    return gy[:, None] * xp.where(is_target, -sum_axes(p, (1,), keepdims=True), p)
