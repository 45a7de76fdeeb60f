"""Sums that stay exact over a million terms, whichever axes they run along."""

from __future__ import annotations

from ...device import Array, array_module
from ..dispatch import kernel

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


@kernel
def sum_axes(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """Sum over non-negative `axes`, floats into their own type, booleans and integers into int64."""
    xp = array_module(x)
    if x.dtype.kind != "f":
        return x.sum(axis=axes, keepdims=keepdims, dtype=xp.int64)
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    terms = 1
    for axis in axes:
        terms *= x.shape[axis]
    columns = x.size // terms if terms else 0
    if columns <= 1 or terms <= 1 or x.size == 0:  # one sum, which NumPy already adds pairwise; or nothing to add
        total = x.sum(axis=axes, dtype=xp.float64)
    else:
        total = column_sum(x.transpose(*axes, *kept).reshape(terms, columns)).reshape([x.shape[axis] for axis in kept])
    if keepdims:
        total = total.reshape([1 if axis in axes else size for axis, size in enumerate(x.shape)])
    return total.astype(x.dtype)


@kernel
def sum_to_shape(gy: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of broadcasting `shape` to gy's shape: sum over every axis that was repeated."""
    if gy.shape == shape:
        return gy
    added = gy.ndim - len(shape)
    repeated = tuple(added + axis for axis, size in enumerate(shape) if size == 1 and gy.shape[added + axis] != 1)
    return sum_axes(gy, (*range(added), *repeated)).reshape(shape)
