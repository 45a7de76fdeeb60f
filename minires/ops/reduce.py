"""Ops that make many elements into few."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Function, is_tensor, wrap
from ..device import array_module
from ..errors import DTypeError, ShapeError
from ..kernels import logsumexp as logsumexp_kernel
from ..kernels import logsumexp_grad, mean_axes, std_axes, std_axes_grad, sum_axes, var_axes, var_axes_grad
from .checks import as_tensor, dimension, dimensions
from .dtypes import real
from .elementwise import maximum, minimum
from .shape import reshape

Dim = int | tuple[int, ...] | None


def _keeping(y: Any, axes: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """y, what `shape` became when reduced over `axes`, with size 1 at these."""
    return y.reshape([1 if axis in axes else size for axis, size in enumerate(shape)])


def _spread(y: Any, axes: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """y, reduced over `axes`, as a read-only view of `shape`: the adjoint of summing."""
    return array_module(y).broadcast_to(_keeping(y, axes, shape), shape)


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
        return mean_axes(x, self.axes, self.keepdim)

    def backward(self, gy: Any) -> Any:
        share = gy.astype(np.float64) / self.terms  # K may exceed float16's 65,504
        return _spread(share.astype(gy.dtype), self.axes, self.shape)


@dataclass(eq=False)
class Var(Function):
    """The variance over `axes`, by two passes over x (Chan, Golub and LeVeque, 1983).

    Forward   m = mean(x);  y = sum((x - m)^2) / (K - correction), K the number of terms
    Backward  gx = gy * 2 (x - m) / (K - correction). What reaches x through m is 0, since sum(x - m) is.
    Saves     x. m is computed again, in two floats where one does not hold it.
    Cost      3 passes over x forward, 3 backward
    """

    axes: tuple[int, ...]
    correction: float
    keepdim: bool

    def forward(self, x: Any) -> Any:
        self.save(x)
        return var_axes(x, self.axes, self.correction, self.keepdim)

    def backward(self, gy: Any) -> Any:
        return var_axes_grad(gy, self.saved[0], self.axes, self.correction)


@dataclass(eq=False)
class Std(Function):
    """y = sqrt(var(x)). gx = gy * (x - m) / ((K - correction) y), and 0 where y = 0: all of x is alike. Saves x."""

    axes: tuple[int, ...]
    correction: float
    keepdim: bool

    def forward(self, x: Any) -> Any:
        self.save(x)
        return std_axes(x, self.axes, self.correction, self.keepdim)

    def backward(self, gy: Any) -> Any:
        return std_axes_grad(gy, self.saved[0], self.axes, self.correction)


@dataclass(eq=False)
class LogSumExp(Function):
    """y = log(sum of exp(x) over `axes`). gx = gy * exp(x - y), which is gy * softmax(x). Saves x."""

    axes: tuple[int, ...]
    keepdim: bool

    def forward(self, x: Any) -> Any:
        self.save(x)
        return logsumexp_kernel(x, self.axes, self.keepdim)

    def backward(self, gy: Any) -> Any:
        return logsumexp_grad(gy, self.saved[0], self.axes)


def _shared(gy: Any, x: Any, y: Any, axes: tuple[int, ...]) -> Any:
    """gx where y is the largest or smallest of x over `axes`: gy / K at each of the K elements equal to it."""
    y, gy = _keeping(y, axes, x.shape), _keeping(gy, axes, x.shape)
    winners = (x == y) | ((x != x) & (y != y))
    return winners * (gy / winners.sum(axis=axes, keepdims=True)).astype(gy.dtype)


@dataclass(eq=False)
class AMax(Function):
    """y = the largest of x over `axes`. gx = gy / K at each of the K elements equal to y, else 0. Saves x and y."""

    axes: tuple[int, ...]
    keepdim: bool

    def forward(self, x: Any) -> Any:
        y = x.max(axis=self.axes, keepdims=self.keepdim)
        self.save(x, y)
        return y

    def backward(self, gy: Any) -> Any:
        x, y = self.saved
        return _shared(gy, x, y, self.axes)


@dataclass(eq=False)
class AMin(Function):
    """y = the smallest of x over `axes`. gx = gy / K at each of the K elements equal to y, else 0. Saves x and y."""

    axes: tuple[int, ...]
    keepdim: bool

    def forward(self, x: Any) -> Any:
        y = x.min(axis=self.axes, keepdims=self.keepdim)
        self.save(x, y)
        return y

    def backward(self, gy: Any) -> Any:
        x, y = self.saved
        return _shared(gy, x, y, self.axes)


def _taken(node: Any, x: Any, index: Any) -> Any:
    """The elements of x at `index` along the node's axis, and the index."""
    xp = array_module(x)
    node.shape = x.shape
    index = xp.expand_dims(index, node.axis)
    node.save(index)
    y = xp.take_along_axis(x, index, axis=node.axis)
    return (y, index) if node.keepdim else (y.squeeze(node.axis), index.squeeze(node.axis))


def _put(node: Any, gy: Any) -> Any:
    """gy at the saved index, 0 elsewhere: the adjoint of taking."""
    xp = array_module(gy)
    gy = gy if node.keepdim else xp.expand_dims(gy, node.axis)
    places = xp.arange(node.shape[node.axis]).reshape([-1 if a == node.axis else 1 for a in range(len(node.shape))])
    return xp.where(places == node.saved[0], gy, 0)


@dataclass(eq=False)
class MaxDim(Function):
    """y, index = the largest of x along `axis`, and its place, the first of equals. gx = gy there. Saves index."""

    axis: int
    keepdim: bool

    def forward(self, x: Any) -> Any:
        return _taken(self, x, x.argmax(axis=self.axis))

    def backward(self, gy: Any) -> Any:
        return _put(self, gy)


@dataclass(eq=False)
class MinDim(Function):
    """y, index = the smallest of x along `axis`, and its place, the first of equals. gx = gy there. Saves index."""

    axis: int
    keepdim: bool

    def forward(self, x: Any) -> Any:
        return _taken(self, x, x.argmin(axis=self.axis))

    def backward(self, gy: Any) -> Any:
        return _put(self, gy)


class MaxResult(NamedTuple):
    """The largest values along a dimension, and their places."""

    values: Any
    indices: Any


class MinResult(NamedTuple):
    """The smallest values along a dimension, and their places."""

    values: Any
    indices: Any


def sum(input: Any, dim: Dim = None, keepdim: bool = False) -> Any:
    """The sum over all dimensions, one, or several; integers sum to int64."""
    input = as_tensor(input)
    return Sum(dimensions("sum", dim, input.ndim), keepdim)(input)


def mean(input: Any, dim: Dim = None, keepdim: bool = False) -> Any:
    """The mean over all dimensions, one, or several; NaN of nothing. Raises DTypeError for integers."""
    input = _floats("mean", input)
    return Mean(dimensions("mean", dim, input.ndim), keepdim)(input)


def var(input: Any, dim: Dim = None, *, correction: float = 1, keepdim: bool = False) -> Any:
    """The variance over all dimensions, one, or several: squared differences from the mean over K - correction.

    NaN where that is 0. Raises DTypeError for integers.
    """
    input = _floats("var", input)
    return Var(dimensions("var", dim, input.ndim), correction, keepdim)(input)


def std(input: Any, dim: Dim = None, *, correction: float = 1, keepdim: bool = False) -> Any:
    """The standard deviation: sqrt(var(...)). Its gradient is 0 where all elements are equal."""
    input = _floats("std", input)
    return Std(dimensions("std", dim, input.ndim), correction, keepdim)(input)


def logsumexp(input: Any, dim: int | tuple[int, ...], keepdim: bool = False) -> Any:
    """log(sum(exp(input))) over one dimension or several; -inf of nothing. Integers become float32."""
    input = real(input)
    return LogSumExp(dimensions("logsumexp", dim, input.ndim), keepdim)(input)


def amax(input: Any, dim: Dim = (), keepdim: bool = False) -> Any:
    """The largest over all dimensions, one, or several; equal ones share the gradient. NaN counts as largest."""
    input = as_tensor(input)
    return AMax(_nonempty("amax", input, dimensions("amax", dim, input.ndim)), keepdim)(input)


def amin(input: Any, dim: Dim = (), keepdim: bool = False) -> Any:
    """The smallest over all dimensions, one, or several; equal ones share the gradient. NaN counts as smallest."""
    input = as_tensor(input)
    return AMin(_nonempty("amin", input, dimensions("amin", dim, input.ndim)), keepdim)(input)


def max(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; with `dim`, (values, indices) of the largest along it. NaN counts as largest.

    Equal largest elements share the gradient; with `dim` the first takes all. With a second tensor: maximum().
    """
    if is_tensor(dim):
        return maximum(input, dim)
    input = as_tensor(input)
    if dim is None:
        return AMax(_nonempty("max", input, tuple(range(input.ndim))), keepdim)(input)
    return MaxResult(*_select("max", MaxDim, input, dim, keepdim))


def min(input: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element; with `dim`, (values, indices) of the smallest along it. NaN counts as smallest.

    Equal smallest elements share the gradient; with `dim` the first takes all. With a second tensor: minimum().
    """
    if is_tensor(dim):
        return minimum(input, dim)
    input = as_tensor(input)
    if dim is None:
        return AMin(_nonempty("min", input, tuple(range(input.ndim))), keepdim)(input)
    return MinResult(*_select("min", MinDim, input, dim, keepdim))


def _select(op: str, function: Any, input: Any, dim: int, keepdim: bool) -> Any:
    axis = dimension(op, dim, input.ndim)
    if input.ndim == 0:  # as in PyTorch, a number is a row of one
        return function(0, False)(reshape(input, 1))
    _nonempty(op, input, (axis,))
    return function(axis, keepdim)(input)


def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The place of the largest element, int64: in the flattened tensor, or along `dim`. The first of equals."""
    input, axis = _place("argmax", input, dim)
    return wrap(input.data.argmax(axis=axis, keepdims=keepdim))


def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The place of the smallest element, int64: in the flattened tensor, or along `dim`. The first of equals."""
    input, axis = _place("argmin", input, dim)
    return wrap(input.data.argmin(axis=axis, keepdims=keepdim))


def _place(op: str, input: Any, dim: int | None) -> tuple[Any, int | None]:
    input = as_tensor(input)
    axis = None if dim is None else dimension(op, dim, input.ndim)
    _nonempty(op, input, tuple(range(input.ndim)) if axis is None else (axis,)[: input.ndim])
    return input, axis if input.ndim else None


def _floats(op: str, input: Any) -> Any:
    input = as_tensor(input)
    if input.dtype.kind != "f":
        raise DTypeError(f"{op}: takes floats, not {input.dtype}; convert with input.to('float32')")
    return input


def _nonempty(op: str, input: Any, axes: tuple[int, ...]) -> tuple[int, ...]:
    if 0 in [input.shape[axis] for axis in axes]:
        what = "smallest" if "min" in op else "largest"
        raise ShapeError(f"{op}: the input of shape {input.shape} has no elements to take the {what} of")
    return axes
