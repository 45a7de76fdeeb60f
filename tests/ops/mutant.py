"""How to plant a mistake: a function from the right `backward` of an op to a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.helpers import Backward


@dataclass(frozen=True)
class Mutant:
    """A wrong backward of a Function, and the case that must show it."""

    mistake: str
    function: type
    case: str
    wrong: Callable[[Backward], Backward]

    def __str__(self) -> str:
        return f"{self.case.partition('-')[0]}-{self.function.__name__}-{self.mistake}"


def changed(change: Callable[..., Any]) -> Callable[[Backward], Backward]:
    """The right gradients, handed to `change` with the Function and its output's gradient."""

    def wrong(right: Backward) -> Backward:
        return lambda self, *gy: change(self, gy[0], right(self, *gy))

    return wrong


def instead(backward: Callable[..., Any]) -> Callable[[Backward], Backward]:
    """Another backward altogether."""
    return lambda right: lambda self, *gy: backward(self, gy[0])


def scaled(factor: float) -> Callable[[Backward], Backward]:
    def times(g: Any) -> Any:
        return None if g is None else g * factor

    return changed(lambda self, gy, g: tuple(map(times, g)) if isinstance(g, tuple) else times(g))


def replaced(index: int, change: Callable[..., Any]) -> Callable[[Backward], Backward]:
    """The right gradients but for one, which `change(self, gy, it)` makes wrong."""
    return changed(lambda self, gy, g: tuple(change(self, gy, v) if i == index else v for i, v in enumerate(g)))


def on_saved(change: Callable[..., tuple[Any, ...]]) -> Callable[[Backward], Backward]:
    """The right formula from wrong arrays: `change(*saved)`."""

    def wrong(right: Backward) -> Backward:
        def backward(self: Any, *gy: Any) -> Any:
            self.saved = change(*self.saved)
            return right(self, *gy)

        return backward

    return wrong


def on_gradient(change: Callable[[Any], Any]) -> Callable[[Backward], Backward]:
    """The right formula from a wrong gradient of the output."""
    return lambda right: lambda self, gy: right(self, change(gy))


def last_ones_lost(gy: Any) -> Any:
    """An image batch's gradient with zeros in each image's last row and last column."""
    out = np.zeros_like(gy)
    out[:, :-1, :-1] = gy[:, :-1, :-1]
    return out


def first_only(x: Any) -> Any:
    """x with zeros but for its first entry along the first axis."""
    return np.concatenate([x[:1], 0 * x[1:]])


zero = replaced(2, lambda self, gy, g: np.zeros_like(g))
