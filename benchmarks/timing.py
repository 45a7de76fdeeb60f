"""How benchmarks time: the contenders in turns, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1, least: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each call: `warmup` rounds that do not count, then `rounds` rounds of one turn of each.

    A turn is one call; of a contender that is done within `least` seconds, as many calls as fill them, whose mean is
    what counts. Such calls find their data in the cache.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    calls = dict.fromkeys(contenders, 1)
    for turn in range(warmup + rounds):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                call()
            seconds = (time.perf_counter() - start) / calls[name]
            if turn >= warmup:
                times[name].append(seconds)
            else:
                calls[name] = max(1, math.ceil(least / max(seconds, 1e-7)))
    return times


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest."""
    return statistics.median(values), min(values), max(values)
