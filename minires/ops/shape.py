"""Ops that only rearrange elements. Their outputs are views of their inputs wherever NumPy can make one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np

from ..autograd import Function, is_tensor
from ..device import array_module
from ..errors import ArgumentError, RangeError, ShapeError
from .checks import as_tensor, dimension


@dataclass(eq=False)
class Reshape(Function):
    """y = the elements of x, in their order, under another shape. gx = gy under x's shape."""

    is_view = True
    shape: tuple[int, ...]

    def forward(self, x: Any) -> Any:
        self.source = x.shape
        return x.reshape(self.shape)

    def backward(self, gy: Any) -> Any:
        return gy.reshape(self.source)


@dataclass(eq=False)
class Permute(Function):
    """y = x with its dimensions in another order. gx = gy with them back in place."""

    is_view = True
    order: tuple[int, ...]

    def forward(self, x: Any) -> Any:
        return x.transpose(self.order)

    def backward(self, gy: Any) -> Any:
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return gy.transpose(back)


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


def reshape(input: Any, *shape: Any) -> Any:
    """`input` under another shape, in which one size may be -1: what is left. Raises ShapeError if the sizes differ."""
    input = as_tensor(input)
    sizes = tuple(int(s) for s in (shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape))
    known = math.prod(s for s in sizes if s != -1)
    unknown = sizes.count(-1)
    fits = known == input.numel() if unknown == 0 else unknown == 1 and known and input.numel() % known == 0
    if not fits or min(sizes, default=0) < -1:
        raise ShapeError(
            f"reshape: a tensor of shape {input.shape} ({input.numel()} elements) cannot take shape {sizes}"
        )
    return Reshape(tuple(s if s != -1 else input.numel() // known for s in sizes))(input)


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """`input` with the dimensions from start_dim to end_dim made one."""
    input = as_tensor(input)
    start, end = (dimension("flatten", d, input.ndim) for d in (start_dim, end_dim))
    if start > end:
        raise ArgumentError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    shape = input.shape
    return reshape(input, *shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


def permute(input: Any, *dims: Any) -> Any:
    """`input` with its dimensions in the order `dims`."""
    input = as_tensor(input)
    order = tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    order = tuple(dimension("permute", d, input.ndim) for d in order)
    if sorted(order) != list(range(input.ndim)):
        raise ShapeError(f"permute: {order} does not name each of the {input.ndim} dimensions of {input.shape} once")
    return Permute(order)(input)


def transpose(input: Any, dim0: int, dim1: int) -> Any:
    """`input` with two dimensions exchanged."""
    input = as_tensor(input)
    order = list(range(input.ndim))
    a, b = (dimension("transpose", d, input.ndim) for d in (dim0, dim1))
    if order:
        order[a], order[b] = b, a
    return Permute(tuple(order))(input)


def check_basic_index(op: str, where: Any) -> tuple[Any, ...]:
    """An index of numbers, slices, None and ... as a tuple. Raises ArgumentError for arrays and lists."""
    parts = tuple(
        int(part) if is_tensor(part) and part.ndim == 0 and part.dtype.kind in "iu" else part
        for part in (where if isinstance(where, tuple) else (where,))
    )
    for part in parts:
        if isinstance(part, bool) or not (part is None or isinstance(part, (int, np.integer, slice, EllipsisType))):
            raise ArgumentError(
                f"{op}: index by integers, slices, None and ..., not by {type(part).__name__}; "
                "for an index without a gradient use x.data[...]"
            )
    return parts


def index(input: Any, where: Any) -> Any:
    """input[where], for integers, slices, None and `...`. Raises RangeError outside the shape."""
    input = as_tensor(input)
    parts = check_basic_index("index", where)
    try:
        return Index(parts)(input)
    except IndexError as error:
        raise RangeError(f"index: {where!r} does not fit shape {input.shape}: {error}") from None
