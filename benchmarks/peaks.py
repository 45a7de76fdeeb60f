"""What this machine can do at most, measured: the two lines of the roofline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from minires import threads

SIDE = 2048  # of the square matrices: 17 GFLOP, over operands (50 MB) that BLAS cuts into cache-sized blocks itself
COPIED = 256 << 20  # bytes of the array that is copied: beyond the caches


class Peaks(NamedTuple):
    """FLOP/s of a matrix product in float32, and bytes/s of a copy, each byte counted once read and once written."""

    gemm: float
    copy: float

    def __str__(self) -> str:
        return f"GEMM {self.gemm / 1e9:.1f} GFLOP/s, copy {self.copy / 1e9:.1f} GB/s"


def _best(call: Callable[[], object], seconds: float) -> float:
    """The least time of a call, over as many as fit `seconds`, five at least."""
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(seconds: float = 0.5) -> Peaks:
    """Both peaks with the threads that are set now: BLAS's for the product, minires's for the copy.

    The product is of two square float32 matrices of SIDE rows, whose flops are counted as 2 * SIDE^3; the copy is of
    COPIED bytes, in blocks of 1 MB that the threads share. Each is the fastest of the calls that fit in `seconds`.
    """
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    product = np.empty_like(a)
    gemm = 2 * SIDE**3 / _best(lambda: np.matmul(a, b, out=product), seconds)
    source = np.ones(COPIED // 4, np.float32)
    target = np.zeros_like(source)
    step = (1 << 20) // 4

    def copy(starts: Iterator[int]) -> None:
        for start in starts:
            np.copyto(target[start : start + step], source[start : start + step])

    return Peaks(gemm, 2 * COPIED / _best(lambda: threads.share(copy, range(0, len(source), step)), seconds))
