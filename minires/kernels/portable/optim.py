"""Stochastic gradient descent, PyTorch's rule."""

from __future__ import annotations

from ...device import Array
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
) -> Array | None:
    """Update w in place by its gradient g, and return the velocity, which is None without momentum.

    g' = g + weight_decay * w;  v = momentum * v + (1 - dampening) * g', v = g' on the first step;
    w -= lr * v, or with Nesterov w -= lr * (g' + momentum * v)
    """
    if maximize:
        g = -g
    if weight_decay:
        g = g + weight_decay * w
    step = g
    if momentum:
        if velocity is None:
            velocity = g.copy()
        else:
            velocity *= momentum
            velocity += g if dampening == 0 else (1 - dampening) * g
        step = g + momentum * velocity if nesterov else velocity
    w -= lr * step
    return velocity
