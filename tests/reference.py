"""Every op once more as loops over elements, to be obviously right. Images are (N, H, W, C), weights (KH, KW, I, O).

Sums are exact (`math.fsum`) and rounded once. Nothing of minires is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Pair = tuple[int, int]


def places(*sizes: int) -> Iterator[tuple[int, ...]]:
    return np.ndindex(*sizes)


def elementwise(fn: Callable[..., float], *arrays: np.ndarray) -> np.ndarray:
    """fn of each element, or of each pair of the two broadcast arrays."""
    out = np.empty(np.broadcast_shapes(*(a.shape for a in arrays)))
    for place, values in zip(places(*out.shape), np.broadcast(*arrays), strict=True):
        out[place] = fn(*(float(v) for v in values))
    return out


def sum_over(x: np.ndarray, axes: Sequence[int], keepdim: bool = False) -> np.ndarray:
    """The sum over some axes."""
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    terms: dict[tuple[int, ...], list[float]] = {place: [] for place in places(*kept)}
    for place in places(*x.shape):
        terms[tuple(0 if axis in axes else i for axis, i in enumerate(place))].append(x[place])
    out = np.array([math.fsum(values) for values in terms.values()]).reshape(kept)
    return out if keepdim else out.reshape([size for axis, size in enumerate(x.shape) if axis not in axes])


def mean_over(x: np.ndarray, axes: Sequence[int], keepdim: bool = False) -> np.ndarray:
    """The mean over some axes; NaN of nothing."""
    count = math.prod(x.shape[axis] for axis in axes)
    total = sum_over(x, axes, keepdim)
    return total / count if count else np.full(total.shape, np.nan)


def max_along(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest along an axis, and the first place where it stands."""
    rows = np.moveaxis(x, axis, -1)
    values, index = np.empty(rows.shape[:-1]), np.zeros(rows.shape[:-1], dtype=np.int64)
    for place in places(*values.shape):
        row = [float(v) for v in rows[place]]
        values[place], index[place] = max(row), row.index(max(row))
    return values, index


def reshape(x: np.ndarray, *shape: int) -> np.ndarray:
    """The elements in their order under another shape."""
    out = np.empty(shape)
    for place, source in zip(places(*shape), places(*x.shape), strict=True):
        out[place] = x[source]
    return out


def permute(x: np.ndarray, *order: int) -> np.ndarray:
    """The dimensions in another order."""
    out = np.empty([x.shape[axis] for axis in order])
    for place in places(*x.shape):
        out[tuple(place[axis] for axis in order)] = x[place]
    return out


def pick(rows: Any, where: tuple[Any, ...]) -> Any:
    """Nested lists by numbers, slices and None."""
    if not where:
        return rows
    first, rest = where[0], where[1:]
    if first is None:
        return [pick(rows, rest)]
    return [pick(row, rest) for row in rows[first]] if isinstance(first, slice) else pick(rows[first], rest)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The matrix product; a 1-D array is a row on the left and a column on the right."""
    a2, b2 = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
    batch = np.broadcast_shapes(a2.shape[:-2], b2.shape[:-2])
    a2, b2 = np.broadcast_to(a2, (*batch, *a2.shape[-2:])), np.broadcast_to(b2, (*batch, *b2.shape[-2:]))
    out = np.empty((*batch, a2.shape[-2], b2.shape[-1]))
    for *lead, i, j in places(*out.shape):
        out[*lead, i, j] = math.fsum(a2[*lead, i, k] * b2[*lead, k, j] for k in range(a2.shape[-1]))
    out = out[..., 0, :] if a.ndim == 1 else out
    return out[..., 0] if b.ndim == 1 else out


def linear(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """x (..., I), w (O, I), b (O,): (..., O)."""
    out = np.empty((*x.shape[:-1], len(w)))
    for *lead, o in places(*out.shape):
        products = [x[*lead, i] * w[o, i] for i in range(w.shape[1])]
        out[*lead, o] = math.fsum(products + ([] if b is None else [b[o]]))
    return out


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


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel of x (..., C)."""
    columns = x.reshape(-1, x.shape[-1]).T
    means = [math.fsum(column) / len(column) for column in columns]
    squares = [math.fsum((v - m) ** 2 for v in column) for column, m in zip(columns, means, strict=True)]
    return np.array(means), np.array([s / columns.shape[1] for s in squares])


def batch_norm(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray | None = None,
    variance: np.ndarray | None = None,
    eps: float = 1e-5,
) -> np.ndarray:
    """By the given mean and variance, or by the batch's own."""
    if x.size == 0:
        return x.copy()
    if mean is None or variance is None:
        mean, variance = moments(x)
    out = np.empty(x.shape)
    for *lead, c in places(*x.shape):
        out[*lead, c] = gamma[c] * (x[*lead, c] - mean[c]) / math.sqrt(variance[c] + eps) + beta[c]
    return out


def batch_norm_grad(gy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """The gradient of x through batch norm by the batch's own statistics."""
    mean, variance = moments(x)
    out = np.empty((x.size // len(gamma), len(gamma)))
    for c, g in enumerate(gy.reshape(-1, len(gamma)).T):
        xhat = (x.reshape(-1, len(gamma))[:, c] - mean[c]) / math.sqrt(variance[c] + eps)
        average, slope = math.fsum(g) / len(g), math.fsum(g * xhat) / len(g)
        out[:, c] = gamma[c] / math.sqrt(variance[c] + eps) * (g - average - xhat * slope)
    return out.reshape(x.shape)


def log_softmax(z: np.ndarray, axis: int) -> np.ndarray:
    """Along one axis."""
    rows = np.moveaxis(z, axis, -1)
    out = np.empty(rows.shape)
    for place in places(*rows.shape[:-1] if rows.size else (0,)):
        top = max(rows[place])
        total = math.log(math.fsum(math.exp(v - top) for v in rows[place]))
        out[place] = [v - top - total for v in rows[place]]
    return np.moveaxis(out, -1, axis)


def softmax(z: np.ndarray, axis: int) -> np.ndarray:
    """Along one axis."""
    return elementwise(math.exp, log_softmax(z, axis))


def nll(x: np.ndarray, target: np.ndarray, reduction: str = "none") -> np.ndarray:
    """Minus each row's entry at its target, summed or averaged if asked to."""
    losses = np.array([-row[t] for row, t in zip(x, target, strict=True)])
    return {"none": lambda a: a, "sum": lambda a: sum_over(a, [0]), "mean": lambda a: mean_over(a, [0])}[reduction](
        losses
    )


def cross_entropy(z: np.ndarray, target: np.ndarray, reduction: str = "none") -> np.ndarray:
    """The negative log-likelihood of the softmax."""
    return nll(log_softmax(z, 1), target, reduction)


def sgd(w: float, gradients: Sequence[float], lr: float, momentum: float, dampening: float, weight_decay: float,
        nesterov: bool, maximize: bool) -> float:  # fmt: skip
    """One weight after a step for each gradient."""
    velocity: float | None = None
    for g in gradients:
        g = (-g if maximize else g) + weight_decay * w
        velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
        w -= lr * (g + momentum * velocity if nesterov else velocity if momentum else g)
    return w
