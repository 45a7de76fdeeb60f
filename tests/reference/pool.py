"""Pooling, window by window, as loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.conv import Pair, output_size, windows


def pool(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, reduce: Callable[[list[np.ndarray]], Any]
) -> np.ndarray:
    """`reduce` of the pixels (C,) of each window that are on the image."""
    out = np.empty((len(x), *output_size(x.shape[1:3], kernel, stride, padding), x.shape[3]))
    seen: dict[Any, list[np.ndarray]] = {}
    for window, _, pixel in windows(x.shape, kernel, stride, padding):
        seen.setdefault(window, []).extend([x[window[0], *pixel]] if pixel else [])
    for window, pixels in seen.items():
        out[window] = reduce(pixels)
    return out


def max_pool2d(x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair = (0, 0)) -> np.ndarray:
    """The largest of each window; padding never wins."""
    return pool(x, kernel, stride, padding, lambda pixels: [max(values) for values in zip(*pixels, strict=True)])


def avg_pool2d(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair = (0, 0), count_include_pad: bool = True
) -> np.ndarray:
    """The mean of each window, in which padding counts as zeros or not at all."""

    def average(pixels: list[np.ndarray]) -> list[float]:
        count = kernel[0] * kernel[1] if count_include_pad else len(pixels)
        return [math.fsum(values) / count for values in zip(*pixels, strict=True)]

    return pool(x, kernel, stride, padding, average)
