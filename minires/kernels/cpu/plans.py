"""Plans: what a kernel does for arrays of some shape, with every view of its memory made beforehand.

For one small image Python takes as long to cut memory into views as NumPy takes to compute. Where the weights are
fixed, so that the same call comes again and again, that is done once. A plan's run is then a dozen calls of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...device import Array
from ...memory import empty
from .tiles import GAP, spaced

SPACE = 1 << 23  # bytes
LINE = 64  # bytes: arrays begin on a cache line

Run = Callable[..., Array]  # of x, w, ...: the result. It must not hold w, with which it is kept


class Space:
    """Scratch memory, which plans cut into arrays. All use the same, so that it stays in the cache."""

    def __init__(self) -> None:
        self.bytes = empty((SPACE,), np.uint8)
        self.used = 0

    def array(self, shape: tuple[int, ...], dtype: Any, leading: int = 0) -> Array:
        """An array of a plan's; with `leading`, that many axes count rows with gaps between: see `tiles.spaced`."""
        count = math.prod(shape) + (math.prod(shape[:leading]) * GAP if leading else 0)
        start = -(-self.used // LINE) * LINE
        end = start + count * np.dtype(dtype).itemsize
        if end > SPACE:  # what has no room gets memory of its own
            flat = empty((count,), dtype)
        else:
            flat, self.used = self.bytes[start:end].view(dtype), end
        return spaced(shape, leading, dtype, flat) if leading else flat.reshape(shape)


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
