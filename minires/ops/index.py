"""Indexing: parts of an array by numbers and slices, which are views, and by arrays, which are copies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from ..autograd import Function, is_tensor
from ..device import array_module
from ..errors import ArgumentError, RangeError
from ..kernels import sum_rows_at
from .checks import as_tensor


@dataclass(eq=False)
class Index(Function):
    """y = x[where], by numbers and slices. gx = 0 but for gx[where] = gy: no element is taken twice."""

    is_view = True
    place: tuple[Any, ...]

    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        whole = self.place if any(part is Ellipsis for part in self.place) else (*self.place, ...)
        return x[whole]  # with an ellipsis a single element is a view, too

    def backward(self, gy: Any) -> Any:
        gx = array_module(gy).zeros(self.shape, dtype=gy.dtype)
        gx[self.place] = gy
        return gx


@dataclass(eq=False)
class Take(Function):
    """y = x[place] where arrays of integers or booleans stand in the place, by NumPy's rules.

    Shapes    place has "array" where an array stands; y has the arrays' common shape there, or first if a slice
              separates them. A boolean array stands for the places of its True, one number for each of its axes
    Forward   y = x[place]
    Backward  gx = for each element of x the sum of gy over its uses: an array may name an element many times
    Saves     the arrays
    Cost      a sort of the places backward. Where all arrays are boolean nothing is taken twice, and nothing sorted
    """

    place: tuple[Any, ...]

    def forward(self, x: Any, *arrays: Any) -> Any:
        self.save(*arrays)
        self.shape = x.shape
        return x[self._where()]

    def backward(self, gy: Any) -> Any:
        xp, where = array_module(gy), self._where()
        if all(array.dtype == bool for array in self.saved):
            gx = xp.zeros(self.shape, dtype=gy.dtype)
            gx[where] = gy
        else:
            named = len(self.shape) if Ellipsis in self.place else sum(map(_axes_of, where))  # the others stay whole
            rows, columns = math.prod(self.shape[:named]), math.prod(self.shape[named:])
            places = xp.arange(rows).reshape(self.shape[:named])[where]  # where each row of y came from
            gx = sum_rows_at(gy.reshape(places.size, columns), places.ravel(), rows).reshape(self.shape)
        return gx, *(None for _ in self.saved)

    def _where(self) -> tuple[Any, ...]:
        arrays = iter(self.saved)
        return tuple(next(arrays) if isinstance(part, str) else part for part in self.place)


def _axes_of(part: Any) -> int:
    """How many axes of x a part of a place stands for."""
    is_mask = hasattr(part, "dtype") and part.dtype.kind == "b"
    return part.ndim if is_mask else int(part is not None)


def index_parts(op: str, input: Any, where: Any) -> tuple[Any, ...]:
    """An index as a tuple of ints, slices, None, ... and Tensors of integers or booleans. Raises ArgumentError."""
    return tuple(_index_part(op, input, part) for part in (where if isinstance(where, tuple) else (where,)))


def _index_part(op: str, input: Any, part: Any) -> Any:
    if isinstance(part, slice):
        try:
            part.indices(1)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{op}: {part}: {error}") from None
    if part is None or (isinstance(part, (int, slice, EllipsisType)) and not isinstance(part, bool)):
        return part
    if hasattr(part, "dtype") or isinstance(part, (list, tuple)):
        array = part if is_tensor(part) else as_tensor(part).to(input.device)
        if isinstance(part, (list, tuple)) and not array.numel():
            array = array.to("int64")  # from [] alone nobody could tell what it holds none of
        if array.dtype.kind in ("iub" if array.ndim else "iu"):
            return array if array.ndim else int(array)
    kind = f"{part.dtype} of shape {part.shape}" if hasattr(part, "dtype") else type(part).__name__
    raise ArgumentError(f"{op}: index by integers, slices, None, ... and arrays of integers or booleans, not by {kind}")


def _without_whole_axes(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Without the `...` or `:` at the end: axes that stay whole need not be named, unless `...` counts from there."""
    if parts[-1] is Ellipsis:
        return parts[:-1]
    dots = any(part is Ellipsis for part in parts)
    while not dots and isinstance(parts[-1], slice) and parts[-1] == slice(None):
        parts = parts[:-1]
    return parts


def index(input: Any, where: Any) -> Any:
    """input[where], by NumPy's rules: integers, slices, None, `...`, and arrays of integers or booleans.

    A view where no array takes part; else a copy, whose gradient sums over elements that were taken many times. Raises
    RangeError outside the shape (on a GPU nobody looks).
    """
    input = as_tensor(input)
    parts = index_parts("index", input, where)
    arrays = [part for part in parts if is_tensor(part)]
    if arrays:
        parts = _without_whole_axes(parts)
    try:
        if not arrays:
            return Index(parts)(input)
        return Take(tuple("array" if is_tensor(part) else part for part in parts))(input, *arrays)
    except IndexError as error:
        raise RangeError(f"index: {where!r} does not fit shape {input.shape}: {error}") from None
