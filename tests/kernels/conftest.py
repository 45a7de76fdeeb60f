"""Kernels that are registered for one test, and the clock that they move."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from minires import kernels
from minires.kernels import Accepts, choice, choices, registry


class Clock:
    """A clock that only fake variants move, and a list of those that were called."""

    def __init__(self) -> None:
        self.now, self.lock, self.calls = 0.0, threading.Lock(), []

    def perf_counter(self) -> float:
        return self.now

    def spend(self, name: str, seconds: float) -> None:
        with self.lock:
            self.now += seconds
            self.calls.append(name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(choice, "time", clock)
    return clock


class Fake:
    """Makes the kernel `fake(x, geometry, bias)`, or one of another name, whose variants return their own names.

    Each is given as name=seconds, which a call of it takes, or as name={"seconds": ..., "cost": ..., ...}.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __call__(self, kernel: str = "fake", **variants: Any) -> Callable[..., Any]:
        entry = kernels.kernel(self.implementation(kernel, "portable", 0))
        for name, given in variants.items():
            settings = dict(given) if isinstance(given, dict) else {"seconds": given}
            function = self.implementation(kernel, name, settings.pop("seconds", 0))
            kernels.variant(entry, Accepts("cpu", ("float32",)), **settings)(function)
        return entry

    def implementation(self, kernel: str, name: str, seconds: float) -> Callable[..., Any]:
        def run(x: Any, geometry: Any = None, bias: Any = None) -> str:
            self.clock.spend(name, seconds)
            return name

        run.__name__ = kernel if name == "portable" else f"{kernel}_{name}"
        return run

    def rows(self, kernel: str = "fake") -> list[tuple[str, str]]:
        """Variant and reason of each choice for a kernel."""
        return [(row.variant, row.how) for row in choices() if row.kernel == kernel]


@pytest.fixture
def fake(clock: Clock) -> Iterator[Fake]:
    with mock.patch.dict(registry):
        yield Fake(clock)
