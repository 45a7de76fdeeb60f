"""Results before times: what a contender computes is held against the portable kernel in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minires.errors import ArgumentError
from minires.kernels import registry


class Error(NamedTuple):
    """The largest and the rms difference from the float64 reference, both over the reference's rms. Also a bound."""

    max: float
    rms: float

    def within(self, bound: Error) -> bool:
        """Whether neither is greater than the bound's; NaN is not."""
        return self.max <= bound.max and self.rms <= bound.rms

    def __str__(self) -> str:
        return f"{self.max:.1e} ({self.rms:.1e} rms)"


EXACT = Error(1e-5, 5e-7)  # a matrix product in float32
FAST = Error(1e-4, 5e-6)  # Winograd with tiles of 4x4, and what peers and kernels of users are held to


def outputs(result: Any) -> list[np.ndarray]:
    """The arrays that a kernel returned: one, or tuples of some, of which those that are None are left out."""
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in outputs(part)]
    return [] if result is None else [np.asarray(result)]


def error(result: Any, reference: Sequence[np.ndarray]) -> Error:
    """The greatest error over all arrays of a result. Raises ArgumentError where their number or shapes differ."""
    got = outputs(result)
    if [a.shape for a in got] != [a.shape for a in reference]:
        raise ArgumentError(f"gives shapes {[a.shape for a in got]} instead of {[a.shape for a in reference]}")
    largest = rms = 0.0
    for mine, right in zip(got, reference, strict=True):
        if right.size == 0:
            continue
        difference = np.subtract(mine, right, dtype=np.float64)
        scale = float(np.sqrt(np.mean(np.square(right, dtype=np.float64)))) or 1.0
        largest = float(np.maximum(largest, np.abs(difference).max() / scale))  # NaN stays
        rms = float(np.maximum(rms, np.sqrt(np.mean(np.square(difference))) / scale))
    return Error(largest, rms)


def verified(who: str, result: Any, reference: Sequence[np.ndarray]) -> Error:
    """The error of a result. Raises ArgumentError, naming `who`, if it is beyond FAST: then it is wrong."""
    try:
        found = error(result, reference)
    except ArgumentError as wrong:
        raise ArgumentError(f"{who} {wrong}, so it was not timed") from None
    if not found.within(FAST):
        raise ArgumentError(
            f"{who} is wrong, so it was not timed: its error is {found.max:.1e} at most, {found.rms:.1e} rms, over the"
            f" rms of the portable kernel's result in float64; up to {FAST.max:.0e} and {FAST.rms:.0e} are admitted"
        )
    return found


def run(function: Callable[..., Any], kernel: str, args: Sequence[Any]) -> list[np.ndarray]:
    """The results of a kernel for `args`, which stay as they are.

    A kernel that works in place (its name ends in _) gets copies, and what it left in them is the result. Raises
    ArgumentError if another kernel writes into its arguments.
    """
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    result = function(*copies)
    if kernel.endswith("_"):
        return [a for a in copies if isinstance(a, np.ndarray)]
    for position, (before, after) in enumerate(zip(args, copies, strict=True)):
        if isinstance(before, np.ndarray) and not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
            raise ArgumentError(f"writes into its argument {position}")
    return outputs(result)


def reference(kernel: str, args: Sequence[Any]) -> list[np.ndarray]:
    """What the portable kernel of this name gives for `args` in float64."""
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args]
    return run(registry[kernel].portable.function, kernel, wide)


def shapes(args: Sequence[Any]) -> str:
    """Arguments of a kernel as a message shows them: arrays by dtype and shape."""
    return ", ".join(f"{a.dtype} {a.shape}" if isinstance(a, np.ndarray) else repr(a) for a in args)
