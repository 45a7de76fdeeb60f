"""Optimizers, one weight at a time, as loops."""

from __future__ import annotations

from collections.abc import Sequence


def sgd(w: float, gradients: Sequence[float], lr: float, momentum: float, dampening: float, weight_decay: float,
        nesterov: bool, maximize: bool) -> float:  # fmt: skip
    """One weight after a step for each gradient."""
    velocity: float | None = None
    for g in gradients:
        g = (-g if maximize else g) + weight_decay * w
        velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
        w -= lr * (g + momentum * velocity if nesterov else velocity if momentum else g)
    return w
