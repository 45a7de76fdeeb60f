"""The generator from which layers draw their initial weights, where none is given to them."""

from __future__ import annotations

import numpy as np

_default: np.random.Generator | None = None


def manual_seed(seed: int) -> np.random.Generator:
    """Start the default generator anew from `seed`, and return it."""
    global _default
    _default = np.random.default_rng(seed)
    return _default


def default_generator() -> np.random.Generator:
    """The generator that `manual_seed` set last; before the first time, one of seed 0."""
    return _default or manual_seed(0)
