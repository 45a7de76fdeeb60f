"""The updates of the optimizers, by PyTorch's rules, and what clipping gradients needs."""

from __future__ import annotations

import math

from ...device import Array, array_module
from ..dispatch import kernel


@kernel
def sgd_(
    w: Array,
    g: Array,
    velocity: Array | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """Update w by its gradient g, and the velocity, which is None without momentum and zeros before the first step.

    g' = g + weight_decay * w;  v = momentum * v + (1 - dampening) * g'
    w -= lr * v, or with Nesterov w -= lr * (g' + momentum * v), or without momentum w -= lr * g'
    """
    if maximize:
        g = -g
    if weight_decay:
        g = g + weight_decay * w
    step = g
    if velocity is not None:
        velocity *= momentum
        velocity += g if dampening == 0 else (1 - dampening) * g
        step = g + momentum * velocity if nesterov else velocity
    w -= lr * step


@kernel
def sgd_foreach_(
    weights: list[Array],
    gradients: list[Array],
    velocities: list[Array] | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """sgd_ of each weight by its gradient and, with momentum, its velocity."""
    for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
        velocity = None if velocities is None else velocities[i]
        sgd_(w, g, velocity, lr, momentum, dampening, weight_decay, nesterov, maximize)


@kernel
def adamw_(
    w: Array,
    g: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    max_exp_avg_sq: Array | None = None,
) -> None:
    """Update w by its gradient g, and the moments m and s of g, at step 1, 2, ...

    w *= 1 - lr * weight_decay;  m = b1 * m + (1 - b1) * g;  s = b2 * s + (1 - b2) * g^2
    w -= lr * m / (1 - b1^step) / (sqrt(s / (1 - b2^step)) + eps), where AMSGrad takes the largest s so far
    """
    xp, (b1, b2) = array_module(w), betas
    if maximize:
        g = -g
    if weight_decay:
        w *= 1 - lr * weight_decay
    exp_avg += (1 - b1) * (g - exp_avg)
    exp_avg_sq *= b2
    exp_avg_sq += (1 - b2) * g * g
    second = xp.maximum(max_exp_avg_sq, exp_avg_sq, out=max_exp_avg_sq) if amsgrad else exp_avg_sq
    root = xp.sqrt(second) / math.sqrt(1 - b2**step)
    w -= lr / (1 - b1**step) * exp_avg / (root + eps)


@kernel
def power_sum(g: Array, power: float) -> Array:
    """The sum of |g|^power in float64, where float32's squares cannot overflow; the largest |g| for an infinite power.

    NaN where one is in g; 0 for an empty g.
    """
    xp = array_module(g)
    wide = abs(g.astype(xp.float64))
    if power == math.inf and g.size:
        return wide.max()
    return (wide * wide if power == 2 else wide**power).sum()


@kernel
def scale_(g: Array, factor: Array) -> None:
    """Multiply g by a factor, a float64 array without dimensions: on a GPU its value need not be known here.

    Each product is made in float64 and rounded once: a small factor may be 0 in g's type.
    """
    g *= factor
