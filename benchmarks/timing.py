"""How benchmarks time: the contenders in turns, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

SETTLE = 0.1  # seconds: while idle threads of OpenBLAS and OpenMP still wait in loops, others get half a core or less


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    settle: float = 0.0,
    least: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of each call: `warmup` rounds that do not count, then `rounds` rounds of one turn of each.

    In its turn a contender is called for `settle` seconds that do not count, in which the threads of the one before
    fall asleep and its own wake up; then once, or as often as it takes to fill `least` seconds, whose mean counts. So
    short calls find their data in the cache. Before a call ten times as long, `settle` is slept instead: then two
    threads may share a core for a while, which so long a call does not feel.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    last = dict.fromkeys(contenders, 0.0)
    for turn in range(warmup + rounds):
        for name, call in contenders.items():
            if last[name] > 10 * settle:
                time.sleep(settle)
                calls = 1
            else:
                calls = max(1, math.ceil(least / _run_for(settle, call)))
            start = time.perf_counter()
            for _ in range(calls):
                call()
            last[name] = (time.perf_counter() - start) / calls
            if turn >= warmup:
                times[name].append(last[name])
    return times


def _run_for(seconds: float, call: Callable[[], object]) -> float:
    """Call for so many seconds; the mean seconds of a call, infinity if there was none."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        call()
        calls += 1
    return (time.perf_counter() - start) / calls if calls else math.inf


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest."""
    return statistics.median(values), min(values), max(values)
