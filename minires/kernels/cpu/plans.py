"""Plans: what a kernel does for arrays of some shape, with every view of its memory made beforehand.

For one small image Python takes as long to cut memory into views as NumPy takes to compute. Where the weights are
fixed, so that the same call comes again and again, that is done once. A plan's run is then a dozen calls of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from ...device import Array
from ..kept import kept
from .tiles import GAP

SPACE = 1 << 25  # bytes, of which the system gives those that are used
ZEROS = 1 << 20  # bytes
LINE = 64  # bytes: arrays begin on a cache line
MOST = 32  # plans for one array of weights: for so many shapes of images

Run = Callable[..., Array]  # of x, w and more: the result. It must not hold w, with which it is kept


class Space:
    """Scratch memory, which plans cut into arrays. All use the same, so that it stays in the cache."""

    def __init__(self) -> None:
        self.bytes, self.nothing = np.empty(SPACE, np.uint8), np.zeros(ZEROS, np.uint8)
        self.nothing.flags.writeable = False
        self.used = 0

    def array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        start = -(-self.used // LINE) * LINE
        end = start + math.prod(shape) * np.dtype(dtype).itemsize
        if end > SPACE:  # what has no room gets memory of its own
            return np.empty(shape, dtype)
        self.used = end
        return self.bytes[start:end].view(dtype).reshape(shape)

    def spaced(self, rows: int, length: int, dtype: Any) -> Array:
        """Memory for rows of so many numbers, with gaps: see `tiles.spaced`."""
        return self.array((rows * (length + GAP),), dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Zeros that nobody may write to, for ReLU: NumPy's maximum with an array is twice as fast as with a number."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self.nothing[:size].view(dtype).reshape(shape) if size <= ZEROS else 0


class Plan:
    """A way to run, made once for each space that it meets: for each of the user's threads that run it at once."""

    def __init__(self, make: Callable[[Space], Run]) -> None:
        self.make = make
        self.made: dict[int, Run] = {}

    def __call__(self, *args: Any) -> Array:
        try:
            space = _free.pop()
        except IndexError:
            space = Space()
        try:
            run = self.made.get(id(space))
            if run is None:
                space.used = 0
                run = self.made[id(space)] = self.make(space)
            return run(*args)
        finally:
            _free.append(space)


_free: list[Space] = []  # who takes one out has it alone; each lives for good, so that its id stays its own


def planned(w: Array, key: Hashable, make: Callable[[], Callable[[Space], Run]]) -> Plan:
    """The plan of that key for weights w; where they are fixed it is kept with them."""
    plans: dict[Hashable, Plan] = kept(w, "plans", dict)
    plan = plans.get(key)
    if plan is None:
        if len(plans) >= MOST:
            plans.clear()
        plan = plans[key] = Plan(make())
    return plan
