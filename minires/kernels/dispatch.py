"""The one place that decides which implementation of a kernel runs.

A kernel is a function on raw arrays. Its portable version, marked `@kernel`, is what callers call and what defines
the right result; a faster version for some arrays registers with `@variant` under the same signature. On a call:

1. A variant that `use` forces runs, or raises if it cannot take the arguments.
2. Else the candidates are the variants that accept the arrays, that suit the arguments, and that the precision setting
   allows. One runs; where there is none, the portable version does.
3. Of several the fastest runs: the one that was measured to be if measuring is on (`choice.py`), else the one that
   estimates the least time, the earlier registered of equals. An infinite estimate is for want of a better variant.

The choice is remembered for all calls with arguments of the same kind.

float16 is storage only: its sums overflow at 65,504 and lose their digits long before. Where no variant takes such
arrays the kernel runs on float32 copies of them, and what it returns is rounded to float16 once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from .. import threads
from ..device import check_one_device, device_of
from ..errors import ArgumentError
from . import choice
from .kept import any_fixed

P = ParamSpec("P")
R = TypeVar("R")

REMEMBERED = 1024  # kinds of arguments that a kernel remembers its choice for; then it forgets, and begins again


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
    """One implementation of a kernel, and what it is for."""

    name: str
    function: Callable[..., Any]
    accepts: Accepts | None = None  # None: everything
    suits: Callable[..., bool] | None = None  # None: whatever it accepts
    cost: Callable[..., float] | None = None  # None: 0
    precision: str = "exact"

    def takes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether it can compute these arguments."""
        accepted = self.accepts is None or self.accepts(_arrays(args, kwargs))
        return accepted and (self.suits is None or self.suits(*args, **kwargs))

    def requirement(self) -> str:
        """What it takes, in words: what it accepts, and the first line of what `suits` says of itself."""
        says = [(inspect.getdoc(self.suits) or "what its suits() takes").splitlines()[0]] if self.suits else []
        return "; ".join([str(self.accepts or "everything"), *says])


class Decision(NamedTuple):
    """What runs for arguments of one kind, and why."""

    name: str
    function: Callable[..., Any]  # the implementation, or for float16 in the portable one what widens its arguments
    how: str  # "only", "forced", "estimated" or "measured"
    seconds: Mapping[str, float]  # of each candidate, where there were several
    lasts: bool  # whether it may be remembered


@dataclass
class Kernel:
    """A named operation on raw arrays, with its implementations in the order in which they are asked."""

    name: str
    portable: Variant
    variants: list[Variant] = field(default_factory=list)
    remembered: dict[Any, Decision] = field(default_factory=dict)
    asks: bool = False  # whether a variant looks at the arguments beyond the kinds of arrays

    @property
    def in_place(self) -> bool:
        """Whether it writes into its arguments, so that calls on trial would add up."""
        return self.name.endswith("_")

    def find(self, name: str) -> Variant:
        """The implementation of a name. Raises ArgumentError for an unknown one."""
        implementations = (self.portable, *self.variants)
        for v in implementations:
            if v.name == name:
                return v
        names = ", ".join(v.name for v in implementations)
        raise ArgumentError(f"kernel {self.name} has no variant {name!r}: it has {names}")

    def choose(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Decision:
        """What runs for these arguments. Raises DeviceError for arrays of two devices.

        It is found once for each key: nothing may decide that the key does not hold.
        """
        forced = _forced.get()
        wanted = forced.get(self.name, forced.get("")) if forced else None
        settings = wanted, choice.get_precision(), threads.get_num_threads(), choice.get_tuner(), any_fixed(args)
        key = (
            settings,
            tuple(kwargs),
            *[
                (value.dtype, value.shape, value.flags.c_contiguous, "cpu")
                if type(value) is np.ndarray
                else float
                if type(value) is float and not self.asks  # a learning rate, new at each step, decides nothing
                else _seen(value)
                for value in (*args, *kwargs.values())
            ],
        )
        remembered, hashable = self.remembered, True
        try:
            decision = remembered.get(key)
        except TypeError:  # an argument without a hash, such as a dict
            decision, hashable = None, False
        if decision is None:
            decision = self._decide(key, args, kwargs)
            if hashable and decision.lasts:
                if len(remembered) >= REMEMBERED:
                    remembered.clear()
                remembered[key] = decision
        return decision

    def candidates(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], precision: str) -> list[Variant]:
        """The variants that may run for these arguments, in the order in which they were registered."""
        allowed = choice.PRECISIONS[: choice.PRECISIONS.index(precision) + 1]
        return [v for v in self.variants if v.precision in allowed and v.takes(args, kwargs)]

    def _decide(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Decision:
        (wanted, precision, count, tuner, _), arrays = key[0], _arrays(args, kwargs)
        check_one_device(self.name, arrays)
        seconds: dict[str, float] = {}
        lasts = True
        if wanted is not None:
            chosen, how = self._forced(wanted, args, kwargs), "forced"
        elif len(candidates := self.candidates(args, kwargs, precision)) < 2:
            chosen, how = next(iter(candidates), self.portable), "only"
        else:
            seconds = {v.name: v.cost(*args, **kwargs) if v.cost else 0.0 for v in candidates}
            chosen, how = self.find(min(seconds, key=seconds.__getitem__)), "estimated"
            calls = {
                v.name: functools.partial(v.function, *args, **kwargs)
                for v in candidates
                if seconds[v.name] < math.inf  # the others are for want of better ones
            }
            on_cpu = all(map(_is_numpy, arrays))  # a GPU's kernels are only queued when a call returns
            if tuner is not None and len(calls) > 1 and not self.in_place and on_cpu:
                call = f"{self.name}({self._arguments(key)}), precision {precision}, {count} threads"
                times = tuner.times(call, calls)
                if times is not None:
                    chosen, how, seconds = self.find(choice.fastest(times)), "measured", times
                lasts = not threads.is_nested()  # where nothing is measured
        widen = chosen is self.portable and any(map(_is_half, (*args, *kwargs.values())))
        return Decision(chosen.name, self._in_float32 if widen else chosen.function, how, seconds, lasts)

    def _forced(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Variant:
        chosen = self.find(name)
        if not chosen.takes(args, kwargs):
            given = ", ".join(_described(_seen(value)) for value in (*args, *kwargs.values()) if value is not None)
            takes = f"variant {name!r} was forced, but takes {chosen.requirement()}"
            raise ArgumentError(f"kernel {self.name}: {takes}, not {given}")
        return chosen

    def choices(self) -> list[choice.Choice]:
        """Its rows of the table of choices."""
        return [
            choice.Choice(
                self.name, self._arguments(key), precision, count, decision.name, decision.how, decision.seconds
            )
            for key, decision in self.remembered.copy().items()
            for _, precision, count, tuner, _ in [key[0]]
            if tuner is choice.get_tuner()
        ]

    def _arguments(self, key: Any) -> str:
        """The arguments that a key stands for, in words."""
        _, names, *values = key
        positional = list(inspect.signature(self.portable.function).parameters)[: len(values) - len(names)]
        given = zip((*positional, *names), values, strict=True)
        return ", ".join(f"{name}={_described(value)}" for name, value in given)

    def _in_float32(self, *args: Any, **kwargs: Any) -> Any:
        """The kernel, on float32 copies of float16 arrays; one that works in place has its writes copied back."""
        given = [*args, *kwargs.values()]
        wide = [value.astype(np.float32) if _is_half(value) else value for value in given]
        args, kwargs = tuple(wide[: len(args)]), dict(zip(kwargs, wide[len(args) :], strict=True))
        result = self.choose(args, kwargs).function(*args, **kwargs)
        for array, written in zip(given, wide, strict=True):
            if self.in_place and _is_half(array) and getattr(array.flags, "writeable", True):  # a gradient may not be
                array[...] = written
        return _narrowed(result)


registry: dict[str, Kernel] = {}
_forced: ContextVar[Mapping[str, str]] = ContextVar("forced_kernels", default=MappingProxyType({}))


def kernel(portable: Callable[P, R]) -> Callable[P, R]:
    """Make a portable function the entry point of the kernel of its name."""
    entry = registry[portable.__name__] = Kernel(portable.__name__, Variant("portable", portable))

    @functools.wraps(portable)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return entry.choose(args, kwargs).function(*args, **kwargs)

    return call


def variant(
    of: Callable[P, R],
    accepts: Accepts,
    *,
    suits: Callable[..., bool] | None = None,
    cost: Callable[..., float] | None = None,
    precision: str = "exact",
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register `<kernel>_<variant>` as the variant of that name of kernel `of`.

    `suits` and `cost` get the kernel's arguments: whether the variant can take them (beyond `accepts`), and about how
    many seconds it needs (math.inf: only for want of another). They may look at shapes, dtypes, contiguity, at what is
    no array, and at whether an array is fixed (kept.py). The first line of `suits`'s docstring tells users what the
    variant takes. `precision` is the first setting that allows it: "fast" keeps it from "exact" runs.

    Raises ArgumentError, at import, if the name or the signature is not the kernel's.
    """
    entry = registry[of.__name__]
    choice.check_precision(precision, f"variant of {entry.name}")

    def register(function: Callable[P, R]) -> Callable[P, R]:
        prefix = f"{entry.name}_"
        same = list(inspect.signature(function).parameters) == list(inspect.signature(of).parameters)
        if not function.__name__.startswith(prefix) or not same:
            raise ArgumentError(
                f"{function.__name__}{inspect.signature(function)} is no variant of {entry.name}{inspect.signature(of)}"
            )
        name = function.__name__.removeprefix(prefix)
        entry.variants.append(Variant(name, function, accepts, suits, cost, precision))
        entry.asks = entry.asks or suits is not None or cost is not None
        entry.remembered = {}
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


def choices() -> list[choice.Choice]:
    """What runs, and why, for each kind of call so far, at the present setting of `set_tuning`."""
    return [row for entry in list(registry.values()) for row in entry.choices()]


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_numpy(array: Any) -> bool:
    return isinstance(array, np.ndarray)


def _arrays(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arrays among the arguments, and those in lists."""
    values = [*args, *kwargs.values()]
    listed = (value for values_ in values if isinstance(values_, list) for value in values_)
    return [value for value in (*values, *listed) if _is_array(value)]


def _is_half(value: Any) -> bool:
    return getattr(value, "dtype", None) == np.float16


def _seen(value: Any) -> Any:
    """What a choice may depend on: of an array its kind alone."""
    if _is_array(value):
        return value.dtype, value.shape, value.flags.c_contiguous, device_of(value)
    return tuple(map(_seen, value)) if isinstance(value, list) else value


def _described(seen: Any) -> str:
    if not (isinstance(seen, tuple) and seen and isinstance(seen[0], np.dtype)):
        return repr(seen)
    dtype, shape, contiguous, device = seen
    return f"{dtype} {shape} on {device}{'' if contiguous else ', not contiguous'}"


def _narrowed(result: Any) -> Any:
    if isinstance(result, tuple):  # a named one holds statistics, which stay float32: a variance soon exceeds 65,504
        return result if hasattr(result, "_fields") else tuple(_narrowed(part) for part in result)
    return result.astype(np.float16) if getattr(result, "dtype", None) == np.float32 else result
