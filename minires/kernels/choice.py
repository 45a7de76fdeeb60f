"""What decides between several variants of a kernel: the precision that is asked for, and measurements.

Measuring is off until `set_tuning` (or MINIRES_TUNE=1) turns it on; until then estimates decide, which are the same
in every run. `dispatch.py` asks here, and remembers the answers.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import threads
from ..errors import ArgumentError
from ..files import publish

PRECISIONS = ("exact", "fast", "tf32")  # each allows what those before it do
ROUNDS = 3  # turns of a candidate
TURN = 0.05  # seconds of a turn: for the first half, threads of the one before may still wait in loops for more work
SLOWER = 1.5  # a candidate this many times slower than the best in the first round is out
NOISE = 0.03  # candidates within this share of the best time count as equally fast
MOST = 2048  # measurements in a process: arguments that are new at each call (a seed) must not be measured for ever
FORMAT = "minires kernel times 1"


class Choice(NamedTuple):
    """What runs for one set of arguments: a row of the table that `kernels.choices()` returns."""

    kernel: str
    arguments: str
    precision: str
    threads: int
    variant: str
    how: str  # "only" (one candidate), "forced", "estimated" or "measured"
    seconds: Mapping[str, float]  # of each candidate, where there were several


def check_precision(precision: str, source: str) -> str:
    """`precision`, if it is one; else ArgumentError that begins with `source`."""
    if precision not in PRECISIONS:
        raise ArgumentError(f"{source}: the precision is 'exact', 'fast' or 'tf32', not {precision!r}")
    return precision


def set_precision(precision: str) -> None:
    """Which convolutions the whole process may use from now on, where no `precision` block says otherwise.

    "exact": only what is as near to the true result as a plain sum of products in float32. "fast", the default: also
    Winograd's F(4x4, 3x3), whose results are within 1e-4 (largest error) and 5e-6 (rms) of the output's rms. Starts as
    MINIRES_PRECISION. "tf32": on a GPU also tensor cores, which keep 10 bits behind the point of x and w: within 1e-2
    and 1e-3. Raises ArgumentError for any other name.
    """
    global _everywhere
    _everywhere = check_precision(precision, "set_precision")


def get_precision() -> str:
    """The precision that holds here: "exact", "fast" or "tf32"."""
    return _here.get() or _everywhere


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """The precision within a `with` block or a decorated function. Threads do not see each other's."""
    token = _here.set(check_precision(name, "precision"))
    try:
        yield
    finally:
        _here.reset(token)


_everywhere = check_precision(os.environ.get("MINIRES_PRECISION") or "fast", "MINIRES_PRECISION")
_here: ContextVar[str | None] = ContextVar("precision", default=None)


def fastest(seconds: Mapping[str, float]) -> str:
    """The name with the least time; among those that differ by no more than noise, the first."""
    limit = min(seconds.values()) * (1 + NOISE)
    return next(name for name, value in seconds.items() if value <= limit)


def measure(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each call, made in turns, so that what disturbs the machine disturbs all of them."""
    turns: dict[str, list[float]] = {name: [] for name in calls}
    racing = list(calls)
    for _ in range(ROUNDS):
        for name in racing:
            turns[name].append(_turn(calls[name]))
        limit = SLOWER * min(seconds[0] for seconds in turns.values())
        racing = [name for name in racing if turns[name][0] <= limit]
    return {name: float(np.median(seconds)) for name, seconds in turns.items()}


def _turn(call: Callable[[], object]) -> float:
    """Call for a while; the median seconds of the later half."""
    times: list[float] = []
    end = time.perf_counter() + TURN
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times[len(times) // 2 :]))


Times = dict[str, dict[str, float]]  # a kernel's name and arguments -> variant -> seconds


class Tuner:
    """Measurements of this process, shared with others by a file if one is named."""

    def __init__(self, cache: Path | None = None) -> None:
        self.cache = cache
        self.measured: Times | None = None  # nothing is read before the first kernel asks
        self.count = 0

    def times(self, key: str, calls: Mapping[str, Callable[[], object]]) -> dict[str, float] | None:
        """Seconds of each call, measured now if they are not known; None where that may not be done.

        Blocks that `threads.share` runs are not the place: the other threads are busy with blocks of their own.
        """
        if threads.is_nested():
            return self._known(key, calls)
        with _one_at_a_time:
            if self.measured is None:
                self.measured = {} if self.cache is None else self._read().get(_machine(), {})
            seconds = self._known(key, calls)
            if seconds is None and self.count < MOST:
                self.count += 1
                seconds = measure(calls)
                self.measured[key] = seconds  # not in one line with the above: measuring may file others' times
                if self.cache is not None:
                    self._write()
            return seconds

    def _known(self, key: str, calls: Mapping[str, object]) -> dict[str, float] | None:
        """What is filed for these very candidates; a variant that is new or gone asks for a new measurement."""
        seconds = (self.measured or {}).get(key, {})
        return {name: seconds[name] for name in calls} if seconds.keys() == calls.keys() else None

    def _read(self) -> dict[str, Times]:
        """What the file holds, by machine. A file that is none of ours is told of once, and then left alone."""
        assert self.cache is not None
        try:
            content = json.loads(self.cache.read_bytes())
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
            return {
                str(machine): {
                    key: {name: _seconds(value) for name, value in times.items()} for key, times in known.items()
                }
                for machine, known in content["machines"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._give_up(f"is no file of kernel times: {type(error).__name__}: {error}")
            return {}

    def _write(self) -> None:
        """Add what was measured to what others have written since: the file is replaced whole."""
        here = _machine()
        machines = self._read()
        if self.cache is None:
            return
        self.measured = machines.get(here, {}) | (self.measured or {})
        text = json.dumps({"format": FORMAT, "machines": machines | {here: self.measured}}, indent=1)
        temporary = self.cache.with_name(f".{self.cache.name}.{os.getpid()}.tmp")
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(text.encode())
                publish(file, self.cache)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            self._give_up(f"cannot be written: {error}")

    def _give_up(self, reason: str) -> None:
        path, self.cache = self.cache, None
        warnings.warn(f"{path} {reason}; kernels are measured without it", RuntimeWarning, stacklevel=2)


def _seconds(value: Any) -> float:
    if not (isinstance(value, float) and math.isfinite(value)):
        raise ValueError(f"{value!r} is no time in seconds")
    return value


def _machine() -> str:
    """What measured times hold for."""
    from .. import __version__, environment

    parts = environment.processor(), f"{threads.available()} cores", f"minires {__version__}", f"NumPy {np.__version__}"
    return ", ".join((*parts, environment.blas().partition(",")[0]))


def set_tuning(on: bool, cache: str | os.PathLike[str] | None = None) -> None:
    """Measure from now on, in the whole process, which variant of a kernel is the fastest for its arguments, or stop.

    The first call with new arguments runs each candidate a few times; the fastest is remembered, and written to
    `cache` if a file is named, where the next process on the same machine finds it. Kernels that work in place are not
    measured. Starts as MINIRES_TUNE=1 and MINIRES_TUNE_CACHE=PATH say. Results may differ in their last digits from a
    run that chose otherwise. Raises ArgumentError for a cache without measuring.
    """
    global _tuner
    if cache is not None and not on:
        raise ArgumentError(
            "set_tuning: a cache is of use only where kernels are measured: set_tuning(True, cache=...)"
        )
    _tuner = Tuner(None if cache is None else Path(cache).absolute()) if on else None


def get_tuning() -> bool:
    """Whether kernels are measured."""
    return get_tuner() is not None


def get_tuner() -> Tuner | None:
    """Who measures, if anybody does."""
    return _tuner


def setting(device: str = "cpu") -> str:
    """What a run's header says of the choice of kernels: "precision fast", or "precision fast, kernels measured"."""
    note = " (on a CPU: fast)" if get_precision() == "tf32" and device == "cpu" else ""
    return f"precision {get_precision()}{note}{', kernels measured' if get_tuning() else ''}"


def _from_environment() -> Tuner | None:
    on, cache = os.environ.get("MINIRES_TUNE", ""), os.environ.get("MINIRES_TUNE_CACHE", "")
    if on not in ("", "0", "1"):
        raise ArgumentError(f"MINIRES_TUNE must be 0 or 1, not {on!r}")
    return Tuner(Path(cache).absolute() if cache else None) if on == "1" or (cache and not on) else None


def _after_fork() -> None:
    """Whoever was measuring when the process was forked does not go on in the child."""
    global _one_at_a_time
    _one_at_a_time = threading.RLock()


_tuner = _from_environment()
_one_at_a_time = (
    threading.RLock()
)  # the same thread may come again: a candidate may call kernels that are measured, too
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
