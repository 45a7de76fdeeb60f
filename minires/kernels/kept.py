"""What kernels make of an array that stays as it is, kept for the next call: transformed weights in evaluation.

A kernel sees an array, not when it was written last; who calls it may know. Inside `fixed(array, version)` a kernel's
`kept(array, ...)` makes a thing once for each version. Outside, in training, weights change at every step: nothing is
kept, and what was is let go.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any

from ..device import Array

_fixed: ContextVar[tuple[Array, object] | None] = ContextVar("fixed_array", default=None)
# id -> (the array, weakly; version; what was made of it)
_kept: dict[int, tuple[Any, object, dict[Hashable, Any]]] = {}


class fixed:
    """A context within which what kernels make of `array` may be kept, as long as it is called with an equal version.

    A version names who counts, too: another owner of the array, such as a Tensor made anew for each call, counts alike.
    """

    def __init__(self, array: Array, version: object) -> None:
        self.told = array, version

    def __enter__(self) -> None:
        self.token = _fixed.set(self.told)

    def __exit__(self, *exception: object) -> None:
        _fixed.reset(self.token)


def _forget(key: int, dead: Any, pop: Any = _kept.pop) -> None:  # at exit the module's names may be gone
    pop(key, None)


def is_fixed(array: Array) -> bool:
    """Whether what is made of `array` now will be kept."""
    told = _fixed.get()
    return told is not None and told[0] is array


def any_fixed(arguments: Iterable[Any]) -> bool:
    """Whether one of the arguments is an array that is fixed."""
    told = _fixed.get()
    if told is not None:
        for argument in arguments:
            if argument is told[0]:
                return True
    return False


def kept(array: Array, name: Hashable, make: Callable[[], Any]) -> Any:
    """`make()`, or what it gave when it was called last for this array, version and name."""
    told = _fixed.get()
    if told is None or told[0] is not array:
        forget(array)
        return make()
    return kept_at(told[1], array, name, make)


def forget(array: Array) -> None:
    """Let go what is kept of an array."""
    _kept.pop(id(array), None)


def kept_at(version: object, array: Array, name: Hashable, make: Callable[[], Any]) -> Any:
    """`kept`, for who knows the version of what is made of `array` himself."""
    key = id(array)
    entry = _kept.get(key)
    if entry is not None and (entry[0]() is not array or entry[1] != version):
        _kept.pop(key, None)
        entry = None
    if entry is None:  # of several threads that come here at once the first one's serves all
        entry = _kept.setdefault(key, (weakref.ref(array, partial(_forget, key)), version, {}))
    if name not in entry[2]:
        entry[2][name] = make()
    return entry[2][name]
