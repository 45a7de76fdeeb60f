"""Optimizers, one weight at a time, as loops."""

from __future__ import annotations

import math
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


def adamw(w: float, gradients: Sequence[float], lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
          amsgrad: bool, maximize: bool) -> float:  # fmt: skip
    """One weight after a step for each gradient."""
    first = second = largest = 0.0
    for step, g in enumerate(gradients, 1):
        g = -g if maximize else g
        w -= lr * weight_decay * w
        first = betas[0] * first + (1 - betas[0]) * g
        second = betas[1] * second + (1 - betas[1]) * g**2
        largest = max(largest, second) if amsgrad else second
        w -= lr * (first / (1 - betas[0] ** step)) / (math.sqrt(largest / (1 - betas[1] ** step)) + eps)
    return w
