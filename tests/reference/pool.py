"""Pooling, window by window, as loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.conv import Pads, Pair, both_sides, output_size, windows
from tests.reference.elementwise import places


def pool(
    x: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Pads,
    reduce: Callable[[Any, list[np.ndarray]], Any],
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> np.ndarray:
    """`reduce` of each window's (n, row, column) and its pixels (C,) that are on the image."""
    size = output_size(x.shape[1:3], kernel, stride, padding, dilation, ceil_mode)
    out = np.empty((len(x), *size, x.shape[3]))
    seen: dict[Any, list[np.ndarray]] = {}
    for window, _, pixel in windows(x.shape, kernel, stride, padding, dilation, ceil_mode):
        seen.setdefault(window, []).extend([x[window[0], *pixel]] if pixel else [])
    for window, pixels in seen.items():
        out[window] = reduce(window, pixels)
    return out


def largest(pixels: list[np.ndarray]) -> list[float]:
    """The largest value of each channel."""
    return [max(values) for values in zip(*pixels, strict=True)]


def mean(pixels: list[np.ndarray], count: int) -> list[float]:
    """The sum of each channel over `count`."""
    return [math.fsum(values) / count for values in zip(*pixels, strict=True)]


def max_pool2d(
    x: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Pads = (0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> np.ndarray:
    """The largest of each window; padding never wins."""
    return pool(x, kernel, stride, padding, lambda window, pixels: largest(pixels), dilation, ceil_mode)


def avg_pool2d(
    x: np.ndarray,
    kernel: Pair,
    stride: Pair,
    padding: Pads = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> np.ndarray:
    """The mean of each window, in which padding counts as zeros or not at all, and what is beyond it never."""
    totals = [size + sum(pads) for size, pads in zip(x.shape[1:3], both_sides(padding), strict=True)]

    def average(window: Any, pixels: list[np.ndarray]) -> list[float]:
        starts = window[1] * stride[0], window[2] * stride[1]
        high, wide = (min(k, total - start) for k, total, start in zip(kernel, totals, starts, strict=True))
        return mean(pixels, high * wide if count_include_pad else len(pixels))

    return pool(x, kernel, stride, padding, average, ceil_mode=ceil_mode)


def adaptive_pool2d(x: np.ndarray, size: Pair, reduce: Callable[[list[np.ndarray]], Any]) -> np.ndarray:
    """`reduce` of the pixels (C,) of each of size[0] x size[1] windows that cover the image."""
    out = np.empty((len(x), *size, x.shape[3]))
    for n, row, column in places(len(x), *size):
        spans = [
            range(math.floor(i * length / count), math.ceil((i + 1) * length / count))
            for i, length, count in zip((row, column), x.shape[1:3], size, strict=True)
        ]
        out[n, row, column] = reduce([x[n, h, w] for h in spans[0] for w in spans[1]])
    return out


def adaptive_avg_pool2d(x: np.ndarray, size: Pair) -> np.ndarray:
    """The mean of each window."""
    return adaptive_pool2d(x, size, lambda pixels: mean(pixels, len(pixels)))


def adaptive_max_pool2d(x: np.ndarray, size: Pair) -> np.ndarray:
    """The largest of each window."""
    return adaptive_pool2d(x, size, largest)
