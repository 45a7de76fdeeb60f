"""Parameter groups."""

from __future__ import annotations

from typing import Any


def decay_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters of a model in two groups for an optimizer: weights, which decay, and all else, which does not.

    Parameters of one dimension or none are the scales and shifts of norms, and biases. Pulling those to 0 limits no
    complexity, only what a layer can represent (He et al., "Bag of Tricks", 2019, section 3.1). `model` is anything
    with `named_parameters()`.
    """
    params = [p for _, p in model.named_parameters()]
    return [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
