"""Ops that make many elements into few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..autograd import Function, is_tensor, wrap
from ..device import array_module
from ..errors import DTypeError, ShapeError
from ..kernels import sum_axes
from .checks import as_tensor, dimension, dimensions
from .elementwise import maximum

Dim = int | tuple[int, ...] | None


def _spread(y: Any, axes: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """y, reduced over `axes`, as a read-only view of `shape`: the adjoint of summing."""
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return array_module(y).broadcast_to(y.reshape(kept), shape)


@dataclass(eq=False)
class Sum(Function):
    """y = sum of x over `axes`. gx = gy, repeated along them. Saves nothing but the shape."""

    axes: tuple[int, ...]
    keepdim: bool

    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        return sum_axes(x, self.axes, self.keepdim)

    def backward(self, gy: Any) -> Any:
        return _spread(gy, self.axes, self.shape)


@dataclass(eq=False)
class Mean(Function):
    """y = sum of x over `axes` / K, K the number of terms. gx = gy / K, repeated. Saves nothing but the shape."""

    axes: tuple[int, ...]
    keepdim: bool

    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        self.terms = math.prod(x.shape[axis] for axis in self.axes)
        return sum_axes(x, self.axes, self.keepdim) / x.dtype.type(self.terms)

    def backward(self, gy: Any) -> Any:
        return _spread(gy / self.terms, self.axes, self.shape)


@dataclass(eq=False)
class AMax(Function):
    """y = the largest of x. gx = gy / K at each of the K elements equal to y, 0 elsewhere. Saves x and y."""

    def forward(self, x: Any) -> Any:
        y = x.max()
        self.save(x, y)
        return y

    def backward(self, gy: Any) -> Any:
        x, y = self.saved
        winners = (x == y) | ((x != x) & (y != y))
        return winners * (gy / winners.sum()).astype(x.dtype)


@dataclass(eq=False)
class MaxDim(Function):
    """y, index = the largest of x along `axis`, and its place, the first of equals. gx = gy there. Saves index."""

    axis: int
    keepdim: bool

    def forward(self, x: Any) -> Any:
        xp = array_module(x)
        self.shape = x.shape
        index = xp.expand_dims(x.argmax(axis=self.axis), self.axis)
        self.save(index)
        y = xp.take_along_axis(x, index, axis=self.axis)
        return (y, index) if self.keepdim else (y.squeeze(self.axis), index.squeeze(self.axis))

    def backward(self, gy: Any) -> Any:
        (index,) = self.saved
        xp = array_module(gy)
        gy = gy if self.keepdim else xp.expand_dims(gy, self.axis)
        places = xp.arange(self.shape[self.axis]).reshape([-1 if a == self.axis else 1 for a in range(len(self.shape))])
        return xp.where(places == index, gy, 0)


class MaxResult(NamedTuple):
    """The largest values along a dimension, and their places."""

    values: Any
    indices: Any


def sum(input: Any, dim: Dim = None, keepdim: bool = False) -> Any:
    """The sum over all dimensions, one, or several; integers sum to int64."""
    input = as_tensor(input)
    return Sum(dimensions("sum", dim, input.ndim), keepdim)(input)


def mean(input: Any, dim: Dim = None, keepdim: bool = False) -> Any:
    """The mean over all dimensions, one, or several; NaN of nothing. Raises DTypeError for integers."""
    input = as_tensor(input)
    if input.dtype.kind != "f":
        raise DTypeError(f"mean: takes floats, not {input.dtype}; convert with input.to('float32')")
    return Mean(dimensions("mean", dim, input.ndim), keepdim)(input)


def max(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with `dim`, (values, indices) of the largest along it. NaN counts as largest.

    Equal largest elements share the gradient; with `dim` the first takes all. With a second tensor: maximum().
    """
    if is_tensor(dim):
        return maximum(input, dim)
    input = as_tensor(input)
    _check_nonempty("max", input, dim)
    if dim is None:
        return AMax()(input)
    return MaxResult(*MaxDim(dimension("max", dim, input.ndim), keepdim)(_at_least_1d(input)))


def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The place of the largest element, int64: in the flattened tensor, or along `dim`. The first of equals."""
    input = as_tensor(input)
    _check_nonempty("argmax", input, dim)
    axis = None if dim is None else dimension("argmax", dim, input.ndim)
    x = input.data
    return wrap(x.argmax(axis=axis if x.ndim else None, keepdims=keepdim))


def _at_least_1d(input: Any) -> Any:
    if input.ndim == 0:
        raise ShapeError("max: a tensor without dimensions has none to go along; use max() without dim")
    return input


def _check_nonempty(op: str, input: Any, dim: int | None) -> None:
    axis = None if dim is None else dimension(op, dim, input.ndim)
    if (input.numel() if axis is None or input.ndim == 0 else input.shape[axis]) == 0:
        raise ShapeError(f"{op}: the input of shape {input.shape} has no elements to take the largest of")
