"""Convolution, window by window, as loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.reference.elementwise import elementwise, places

Pair = tuple[int, int]


def windows(shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Iterator[tuple[Any, Any, Any]]:
    """For each window (n, row, column) of images: its place, and for each pixel of it (i, j): the pixel's (h, w).

    Pixels on the padding have None for (h, w).
    """
    n, height, width, _ = shape
    rows, columns = output_size((height, width), kernel, stride, padding)
    for image, row, column in places(n, rows, columns):
        for i, j in places(*kernel):
            h, w = row * stride[0] + i - padding[0], column * stride[1] + j - padding[1]
            yield (image, row, column), (i, j), ((h, w) if 0 <= h < height and 0 <= w < width else None)


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """How often a window fits, down and across, counted step by step."""
    down, across = (
        sum(1 for start in range(0, s + 2 * p, t) if start + k <= s + 2 * p)
        for s, k, t, p in zip(size, kernel, stride, padding, strict=True)
    )
    return down, across


def conv2d(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, stride: Pair = (1, 1), padding: Pair = (0, 0)
) -> np.ndarray:
    """Cross-correlation."""
    kh, kw, channels, outputs = w.shape
    out = np.zeros((len(x), *output_size(x.shape[1:3], (kh, kw), stride, padding), outputs))
    for (n, row, column), (i, j), pixel in windows(x.shape, (kh, kw), stride, padding):
        for c, o in places(channels, outputs if pixel else 0):
            out[n, row, column, o] += x[n, *pixel, c] * w[i, j, c, o]
    return out if b is None else elementwise(lambda p, q: p + q, out, b)


def im2col(x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    """Each window as a row (KH*KW*C), the channels innermost."""
    n, height, width, channels = x.shape
    rows, columns = output_size((height, width), kernel, stride, padding)
    out = np.zeros((n, rows, columns, *kernel, channels))
    for window, tap, pixel in windows(x.shape, kernel, stride, padding):
        if pixel:
            out[*window, *tap] = x[window[0], *pixel]
    return out.reshape(n * rows * columns, -1)


def col2im(cols: np.ndarray, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> np.ndarray:
    """Each entry added to the pixel that im2col took it from."""
    n, height, width, channels = shape
    out = np.zeros(shape)
    values = cols.reshape(n, *output_size((height, width), kernel, stride, padding), *kernel, channels)
    for window, tap, pixel in windows(shape, kernel, stride, padding):
        if pixel:
            out[window[0], *pixel] += values[*window, *tap]
    return out
