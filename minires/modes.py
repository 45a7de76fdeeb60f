"""What can be switched for a block of code: recording, and the search for anomalies."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator
from contextlib import ContextDecorator
from contextvars import ContextVar
from typing import Any, ClassVar

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)
_anomaly_enabled: ContextVar[bool] = ContextVar("anomaly_enabled", default=False)
tracer: ContextVar[Any] = ContextVar("tracer", default=None)  # called with each Function, its inputs and its outputs


class _Mode(ContextDecorator):
    """Set a context variable within a `with` block or a decorated function. Threads do not see each other's."""

    variable: ClassVar[ContextVar[bool]]
    value: ClassVar[bool]
    _before: list[bool]

    def __new__(cls, function: Any = None) -> Any:  # `@no_grad` decorates without parentheses, too
        mode = super().__new__(cls)
        mode._before = []
        return mode if function is None else mode(function)

    def __call__(self, function: Any) -> Any:
        if not inspect.isgeneratorfunction(function):
            return super().__call__(function)

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:  # its caller has its own mode in between
            generator, sent = function(*args, **kwargs), None
            while True:
                try:
                    with type(self)():
                        value = generator.send(sent)
                except StopIteration as stop:
                    return stop.value
                sent = yield value

        return steps

    def _recreate_cm(self) -> Any:  # a decorated function may run in several threads: one manager for each call
        return type(self)()

    def __enter__(self) -> None:
        self._before.append(self.variable.get())
        self.variable.set(self.value)

    def __exit__(self, *exception: object) -> None:
        self.variable.set(self._before.pop())


class no_grad(_Mode):
    """Record nothing: for evaluation, and for writing into parameters."""

    variable, value = _grad_enabled, False


class enable_grad(_Mode):
    """Record again, inside `no_grad`."""

    variable, value = _grad_enabled, True


class detect_anomaly(_Mode):
    """Find the op and the line that made the first NaN or infinity, and writes behind the engine's back. Slow.

    Every result and every gradient is checked. Saved arrays get a checksum, compared before they are used: the only
    way to notice a write through a raw array (`x.data[0] = 1`), which version counters cannot see.
    """

    variable, value = _anomaly_enabled, True


def is_grad_enabled() -> bool:
    """Whether Functions called now are recorded."""
    return _grad_enabled.get()


def is_anomaly_enabled() -> bool:
    """Whether anomalies are looked for."""
    return _anomaly_enabled.get()
