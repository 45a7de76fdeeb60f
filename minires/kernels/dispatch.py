"""The one place that decides which implementation of a kernel runs.

A kernel is a function on raw arrays. Its portable version, marked `@kernel`, is what callers call and what defines
the right result; a faster version for some arrays registers with `@variant` under the same signature. On a call the
first variant that accepts the arguments runs, else the portable one.

float16 is storage only: its sums overflow at 65,504 and lose their digits long before. Where no variant takes such
arrays the kernel runs on float32 copies of them, and what it returns is rounded to float16 once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import numpy as np

from ..device import check_one_device, device_of
from ..errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Accepts:
    """What a variant takes: every array on one kind of device, of these dtypes, C-contiguous or not."""

    device: str
    dtypes: tuple[str, ...] = ("float32", "float64")
    contiguous: bool = True

    def __call__(self, arrays: list[Any]) -> bool:
        return all(
            device_of(a).startswith(self.device)
            and a.dtype.name in self.dtypes
            and (a.flags.c_contiguous or not self.contiguous)
            for a in arrays
        )


@dataclass(frozen=True)
class Variant:
    """One implementation of a kernel, and what it accepts."""

    name: str
    function: Callable[..., Any]
    accepts: Accepts | None = None  # None: everything


@dataclass
class Kernel:
    """A named operation on raw arrays, with its implementations in the order in which they are asked."""

    name: str
    portable: Variant
    variants: list[Variant] = field(default_factory=list)

    def find(self, name: str) -> Variant:
        """The implementation of a name. Raises ArgumentError for an unknown one."""
        implementations = (self.portable, *self.variants)
        for v in implementations:
            if v.name == name:
                return v
        names = ", ".join(v.name for v in implementations)
        raise ArgumentError(f"kernel {self.name} has no variant {name!r}: it has {names}")

    def choose(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Variant:
        """The implementation that runs for these arguments. Raises DeviceError for arrays of two devices."""
        arrays = [a for a in (*args, *kwargs.values()) if hasattr(a, "dtype") and hasattr(a, "shape")]
        check_one_device(self.name, arrays)
        forced = _forced.get()
        wanted = forced.get(self.name, forced.get(""))
        if wanted is not None:
            chosen = self.find(wanted)
            if chosen.accepts and not chosen.accepts(arrays):
                given = ", ".join(f"{a.dtype} {a.shape} on {device_of(a)}" for a in arrays)
                raise ArgumentError(
                    f"kernel {self.name}: variant {wanted!r} was forced, but takes {chosen.accepts}, not {given}"
                )
            return chosen
        return next((v for v in self.variants if v.accepts is None or v.accepts(arrays)), self.portable)


registry: dict[str, Kernel] = {}
_forced: ContextVar[Mapping[str, str]] = ContextVar("forced_kernels", default=MappingProxyType({}))


def kernel(portable: Callable[P, R]) -> Callable[P, R]:
    """Make a portable function the entry point of the kernel of its name."""
    entry = registry[portable.__name__] = Kernel(portable.__name__, Variant("portable", portable))

    @functools.wraps(portable)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        chosen = entry.choose(args, kwargs)
        if chosen is entry.portable and any(map(_is_half, (*args, *kwargs.values()))):
            return _in_float32(call, args, kwargs, in_place=entry.name.endswith("_"))
        return chosen.function(*args, **kwargs)

    return call


def _is_half(value: Any) -> bool:
    return getattr(value, "dtype", None) == np.float16


def _in_float32(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], in_place: bool) -> Any:
    """The kernel once more, on float32 copies of float16 arrays; one that works in place has its writes copied back."""
    given = [*args, *kwargs.values()]
    wide = [value.astype(np.float32) if _is_half(value) else value for value in given]
    result = call(*wide[: len(args)], **dict(zip(kwargs, wide[len(args) :], strict=True)))
    for array, written in zip(given, wide, strict=True):
        if in_place and _is_half(array) and getattr(array.flags, "writeable", True):  # a gradient may be read-only
            array[...] = written
    return _narrowed(result)


def _narrowed(result: Any) -> Any:
    if isinstance(result, tuple):  # a named one holds statistics, which stay float32: a variance soon exceeds 65,504
        return result if hasattr(result, "_fields") else tuple(_narrowed(part) for part in result)
    return result.astype(np.float16) if getattr(result, "dtype", None) == np.float32 else result


def variant(of: Callable[P, R], accepts: Accepts) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register `<kernel>_<variant>` as the variant of that name of kernel `of`.

    Raises ArgumentError, at import, if the name or the signature is not the kernel's.
    """
    entry = registry[of.__name__]

    def register(function: Callable[P, R]) -> Callable[P, R]:
        prefix = f"{entry.name}_"
        same = list(inspect.signature(function).parameters) == list(inspect.signature(of).parameters)
        if not function.__name__.startswith(prefix) or not same:
            raise ArgumentError(
                f"{function.__name__}{inspect.signature(function)} is no variant of {entry.name}{inspect.signature(of)}"
            )
        entry.variants.append(Variant(function.__name__.removeprefix(prefix), function, accepts))
        return function

    return register


@contextlib.contextmanager
def use(variant: str | None = None, /, **kernels: str) -> Iterator[None]:
    """Force implementations within a block: `use("portable")` for all kernels, `use(conv2d="blocked")` for one.

    A forced implementation that cannot take its arguments raises. A kernel or variant unknown raises ArgumentError.
    """
    unknown = [name for name in kernels if name not in registry]
    if unknown:
        raise ArgumentError(f"no kernel named {', '.join(unknown)}; there are {', '.join(sorted(registry))}")
    if variant not in (None, "portable"):
        raise ArgumentError(
            f"use({variant!r}): only 'portable' exists for every kernel; name one: use(conv2d={variant!r})"
        )
    for name, wanted in kernels.items():
        registry[name].find(wanted)
    outer = {"": variant} if variant else _forced.get()
    token = _forced.set({**outer, **kernels})
    try:
        yield
    finally:
        _forced.reset(token)


def quiet() -> np.errstate:
    """Overflow, division by zero and NaN are results here, as in PyTorch, not warnings: anomaly mode finds them."""
    return np.errstate(all="ignore")
