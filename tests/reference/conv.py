"""Convolution, window by window, as loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.reference.elementwise import elementwise, places

Pair = tuple[int, int]
Pads = Pair | tuple[Pair, Pair]  # (rows, columns) on both sides, or ((top, bottom), (left, right))


def windows(
    shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pads, dilation: Pair = (1, 1), ceil_mode: bool = False
) -> Iterator[tuple[Any, Any, Any]]:
    """For each window (n, row, column) of images: its place, and for each pixel of it (i, j): the pixel's (h, w).

    Pixels on the padding have None for (h, w).
    """
    n, height, width, _ = shape
    (top, _), (left, _) = both_sides(padding)
    rows, columns = output_size((height, width), kernel, stride, padding, dilation, ceil_mode)
    for image, row, column in places(n, rows, columns):
        for i, j in places(*kernel):
            h, w = row * stride[0] + i * dilation[0] - top, column * stride[1] + j * dilation[1] - left
            yield (image, row, column), (i, j), ((h, w) if 0 <= h < height and 0 <= w < width else None)


def both_sides(padding: Pads) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right))."""
    rows, columns = ((p, p) if isinstance(p, int) else p for p in padding)
    return rows, columns


def output_size(
    size: Pair, kernel: Pair, stride: Pair, padding: Pads, dilation: Pair = (1, 1), ceil_mode: bool = False
) -> Pair:
    """How often a window fits, down and across, counted step by step; with `ceil_mode` once more if places are left."""
    counts = []
    for s, k, t, (before, after), d in zip(size, kernel, stride, both_sides(padding), dilation, strict=True):
        total, count, start = before + s + after, 0, 0
        while start + (k - 1) * d < total:
            count, start = count + 1, start + t
        seen = start - t + (k - 1) * d + 1
        counts.append(count + (ceil_mode and seen < total and start < before + s))
    return counts[0], counts[1]


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    stride: Pair = (1, 1),
    padding: Pads = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Cross-correlation; output channel o belongs to group o // (O/groups)."""
    kh, kw, channels, outputs = w.shape
    out = np.zeros((len(x), *output_size(x.shape[1:3], (kh, kw), stride, padding, dilation), outputs))
    for (n, row, column), (i, j), pixel in windows(x.shape, (kh, kw), stride, padding, dilation):
        for c, o in places(channels, outputs if pixel else 0):
            group = o // (outputs // groups)
            out[n, row, column, o] += x[n, *pixel, group * channels + c] * w[i, j, c, o]
    return out if b is None else elementwise(lambda p, q: p + q, out, b)


def conv_transpose2d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    groups: int = 1,
    dilation: Pair = (1, 1),
) -> np.ndarray:
    """Each pixel of x, times the kernel, added where the kernel lies; then the padding is cut off."""
    n, height, width, inputs = x.shape
    kh, kw, channels, _ = w.shape
    rows = (height - 1) * stride[0] + (kh - 1) * dilation[0] + 1 + output_padding[0]
    columns = (width - 1) * stride[1] + (kw - 1) * dilation[1] + 1 + output_padding[1]
    out = np.zeros((n, rows, columns, channels * groups))
    for image, row, column, i, j, c, k in places(n, height, width, kh, kw, channels, inputs):
        group = k // (inputs // groups)
        place = image, row * stride[0] + i * dilation[0], column * stride[1] + j * dilation[1], group * channels + c
        out[place] += x[image, row, column, k] * w[i, j, c, k]
    out = out[:, padding[0] : rows - padding[0], padding[1] : columns - padding[1]]
    return out if b is None else elementwise(lambda p, q: p + q, out, b)


def im2col(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pads, dilation: Pair = (1, 1), groups: int = 1
) -> np.ndarray:
    """For each group, each window as a row (KH*KW*C/groups), the channels innermost."""
    n, height, width, channels = x.shape
    rows, columns = output_size((height, width), kernel, stride, padding, dilation)
    out = np.zeros((groups, n, rows, columns, *kernel, channels // groups))
    for window, tap, pixel in windows(x.shape, kernel, stride, padding, dilation):
        if pixel:
            out[:, *window, *tap] = x[window[0], *pixel].reshape(groups, -1)
    out = out.reshape(groups, n * rows * columns, kernel[0] * kernel[1] * (channels // groups))
    return out[0] if groups == 1 else out


def col2im(
    cols: np.ndarray,
    shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Pads,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> np.ndarray:
    """Each entry added to the pixel that im2col took it from."""
    n, height, width, channels = shape
    out = np.zeros(shape)
    size = output_size((height, width), kernel, stride, padding, dilation)
    values = cols.reshape(groups, n, *size, *kernel, channels // groups)
    for window, tap, pixel in windows(shape, kernel, stride, padding, dilation):
        if pixel:
            out[window[0], *pixel] += values[:, *window, *tap].reshape(channels)
    return out
