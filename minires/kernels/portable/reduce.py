"""Sums, means and variances that stay exact over a million terms, whichever axes they run along."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...device import Array, array_module, device_of
from ..dispatch import kernel, quiet

# Rows that are added one by one before partial sums are. A plain x.sum(0) of a C-ordered array adds all rows one by
# one: 131,072 float32 rows lose 1e-5. The error grows with the length of such a run, so runs are kept short.
RUN = 16


def column_sum(x: Array) -> Array:
    """Sum an (M, C) array of floats down its rows, into float64 (C,)."""
    rows, columns = x.shape
    xp = array_module(x)
    while rows > RUN:
        whole = rows // RUN * RUN
        partial = x[:whole].reshape(-1, RUN, columns).sum(axis=1)
        rest = x[whole:].sum(axis=0, keepdims=True, dtype=xp.float64)
        x = xp.concatenate([partial.astype(xp.float64), rest])
        rows = len(x)
    return x.sum(axis=0, dtype=xp.float64)


def count(x: Array, axes: Sequence[int]) -> int:
    """How many elements of x each sum over `axes` takes."""
    return math.prod(x.shape[axis] for axis in axes)


def kept_shape(x: Array, axes: Sequence[int]) -> tuple[int, ...]:
    """x's shape with size 1 at `axes`."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))


def wide_sum(x: Array, axes: tuple[int, ...]) -> Array:
    """Sum floats over non-negative `axes`, which stay with size 1, into float64."""
    terms = count(x, axes)
    if terms <= RUN:
        return x.sum(axis=axes, dtype=array_module(x).float64, keepdims=True)
    columns = x.size // terms if terms else 0
    whole = x.flags.c_contiguous and sorted(axes) == list(range(x.ndim - len(axes), x.ndim))
    if whole or columns <= 1 or x.size == 0:  # a sum's terms lie together: NumPy adds them pairwise
        return x.sum(axis=axes, dtype=array_module(x).float64, keepdims=True)
    kept = (axis for axis in range(x.ndim) if axis not in axes)
    return column_sum(x.transpose(*axes, *kept).reshape(terms, columns)).reshape(kept_shape(x, axes))


def finished(total: Array, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    """A reduction of x over `axes`, in which they have size 1, rounded to x's dtype; without them unless `keepdims`."""
    total = total.astype(x.dtype, copy=False)
    return total if keepdims else total.reshape([size for axis, size in enumerate(x.shape) if axis not in axes])


@kernel
def sum_axes(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """Sum over non-negative `axes`, floats into their own type, booleans and integers into int64."""
    if x.dtype.kind != "f":
        return x.sum(axis=axes, keepdims=keepdims, dtype=array_module(x).int64)
    return finished(wide_sum(x, axes), x, axes, keepdims)


@kernel
def sum_to_shape(gy: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of broadcasting `shape` to gy's shape: sum over every axis that was repeated."""
    if gy.shape == shape:
        return gy
    added = gy.ndim - len(shape)
    repeated = tuple(added + axis for axis, size in enumerate(shape) if size == 1 and gy.shape[added + axis] != 1)
    return sum_axes(gy, (*range(added), *repeated)).reshape(shape)


@kernel
def sum_rows_at(gy: Array, places: Array, rows: int) -> Array:
    """The adjoint of x[places] for x of (rows, C): row r is the sum of those rows of gy (M, C) whose place (M,) is r.

    Sorting by place brings a row's terms together, in their order; a scatter would add them in any order.
    """
    xp = array_module(gy)
    order = places.argsort(kind="stable")
    inside, every = places[order], xp.arange(rows)
    starts, ends = xp.searchsorted(inside, every), xp.searchsorted(inside, every, side="right")
    # one row of zeros more, for the runs without terms at the end to start at
    terms = xp.concatenate([gy[order], xp.zeros_like(gy, shape=(1, gy.shape[1]))]).astype(xp.float64)
    total = xp.add.reduceat(terms, starts, axis=0) if device_of(gy) == "cpu" else _rest_of_run(terms, inside)[starts]
    return xp.where((starts < ends)[:, None], total, 0).astype(gy.dtype)


def _rest_of_run(terms: Array, places: Array) -> Array:
    """Make each row of terms the sum of itself and of those after it at the same place; equal places are together.

    For CuPy, whose add.reduceat subtracts running sums: there a NaN would reach every run after its own.
    """
    step, rows = 1, len(places)
    while step < rows:  # a row holds the sum of up to `step` rows, and takes that of the next ones
        same = places[step:] == places[:-step]
        terms[: rows - step] += array_module(terms).where(same[:, None], terms[step:rows], 0)
        step *= 2
    return terms


@kernel
def mean_axes(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """The mean over non-negative `axes`, rounded once; NaN of nothing."""
    with quiet():
        return finished(wide_sum(x, axes) / count(x, axes), x, axes, keepdims)


def centred(x: Array, axes: tuple[int, ...]) -> Array:
    """x minus its mean, and minus what rounding had taken from that mean: exact a million deviations from 0."""
    terms = count(x, axes)
    d = x - (wide_sum(x, axes) / terms).astype(x.dtype)
    return d - (wide_sum(d, axes) / terms).astype(x.dtype)


def _variance(d: Array, axes: tuple[int, ...], correction: float) -> Array:
    return wide_sum(d * d, axes) / max(count(d, axes) - correction, 0)


@kernel
def var_axes(x: Array, axes: tuple[int, ...], correction: float, keepdims: bool = False) -> Array:
    """The variance over non-negative `axes`: squared differences from the mean, over their number less `correction`."""
    with quiet():
        return finished(_variance(centred(x, axes), axes, correction), x, axes, keepdims)


@kernel
def var_axes_grad(gy: Array, x: Array, axes: tuple[int, ...], correction: float) -> Array:
    """gx of var_axes: gy * 2 * (x - mean) / (K - correction), over K elements."""
    with quiet():
        factor = gy.reshape(kept_shape(x, axes)) * 2 / max(count(x, axes) - correction, 0)
        return centred(x, axes) * factor


def _deviation(x: Array, axes: tuple[int, ...], correction: float) -> tuple[Array, Array]:
    """x minus its mean, and the standard deviation, in float64: squares leave float32 above 1e19 and below 1e-19."""
    xp = array_module(x)
    d = centred(x, axes).astype(xp.float64, copy=False)
    return d, xp.sqrt(_variance(d, axes, correction))


@kernel
def std_axes(x: Array, axes: tuple[int, ...], correction: float, keepdims: bool = False) -> Array:
    """The square root of var_axes, which is taken before rounding: in float16 a variance soon exceeds 65,504."""
    with quiet():
        return finished(_deviation(x, axes, correction)[1], x, axes, keepdims)


@kernel
def std_axes_grad(gy: Array, x: Array, axes: tuple[int, ...], correction: float) -> Array:
    """gx of std_axes: gy * (x - mean) / ((K - correction) * y), over K elements; 0 where all are equal."""
    with quiet():
        d, y = _deviation(x, axes, correction)
        factor = gy.reshape(kept_shape(x, axes)) / (y * max(count(x, axes) - correction, 0))
        return (d * array_module(x).where(y == 0, 0, factor)).astype(x.dtype)


def _exponentials(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """The largest of x over `axes`, exp(x - largest), and the sum of these but for a largest one's own 1.

    1 + s rounds away an s below 1e-7; log1p(s) does not.
    """
    xp = array_module(x)
    top = x.max(axis=axes, keepdims=True)
    e, is_top = xp.exp(x - top), x == top
    return top, e, wide_sum(xp.where(is_top, 0, e), axes) + (is_top.sum(axis=axes, keepdims=True) - 1)


@kernel
def logsumexp(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """log(sum(exp(x))) over non-negative `axes`, which overflows nowhere; -inf of nothing."""
    xp = array_module(x)
    with quiet():
        if x.size == 0:
            return finished(xp.full(kept_shape(x, axes), -math.inf), x, axes, keepdims)
        top, _, others = _exponentials(x, axes)
        return finished(top + xp.log1p(others), x, axes, keepdims)


@kernel
def logsumexp_grad(gy: Array, x: Array, axes: tuple[int, ...]) -> Array:
    """gx of logsumexp: gy * exp(x - y), where y is its result."""
    if x.size == 0:
        return x.copy()
    with quiet():
        _, e, others = _exponentials(x, axes)
        return e * (gy.reshape(kept_shape(x, axes)) / (1 + others)).astype(x.dtype)
