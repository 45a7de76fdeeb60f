"""The generator from which layers draw, initial weights and dropout's masks, where none is given to them."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np

from .errors import ArgumentError

_default: np.random.Generator | None = None
_first_use = threading.Lock()


def manual_seed(seed: int) -> np.random.Generator:
    """Start the default generator anew from `seed`, and return it."""
    global _default
    _default = np.random.default_rng(seed)
    return _default


def default_generator() -> np.random.Generator:
    """The generator that `manual_seed` set last; before the first time, one of seed 0."""
    with _first_use:  # two threads at once would each start one, and draw the same numbers
        return _default or manual_seed(0)


def given_or_default(generator: np.random.Generator | None) -> np.random.Generator:
    """`generator`, or for None the default one. Raises ArgumentError for anything else."""
    if generator is None:
        return default_generator()
    if not isinstance(generator, np.random.Generator):
        raise ArgumentError(f"generator must be a numpy Generator, not {generator!r}: np.random.default_rng(seed)")
    return generator


def get_rng_state() -> dict[str, Any]:
    """Where the default generator stands: a dictionary of numbers and names, which JSON holds."""
    return dict(default_generator().bit_generator.state)


def set_rng_state(state: dict[str, Any]) -> None:
    """Start the default generator anew from where `get_rng_state` found it. Raises ArgumentError for another state."""
    global _default
    bits = np.random.PCG64()
    try:
        bits.state = cast(Any, state)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ArgumentError(f"set_rng_state: not a state from get_rng_state: {error}") from None
    _default = np.random.Generator(bits)
