"""Ops that only rearrange, repeat or surround elements. Where NumPy can make a view, the output is one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function
from ..device import array_module
from ..errors import ArgumentError, DTypeError, ShapeError
from ..kernels import sum_to_shape
from .checks import as_tensor, dimension, dimensions, integers
from .dtypes import is_scalar, number
from .index import index


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
class Expand(Function):
    """y = x, broadcast to a shape: a read-only view. gx = gy, summed over what was repeated."""

    is_view = True
    shape: tuple[int, ...]

    def forward(self, x: Any) -> Any:
        self.source = x.shape
        return array_module(x).broadcast_to(x, self.shape)

    def backward(self, gy: Any) -> Any:
        return sum_to_shape(gy, self.source)


@dataclass(eq=False)
class Concatenate(Function):
    """y = arrays one after the other along an axis. The gradient of each is its part of gy, a view. Saves nothing."""

    axis: int

    def forward(self, *arrays: Any) -> Any:
        self.sizes = [a.shape[self.axis] for a in arrays]
        return array_module(arrays[0]).concatenate(arrays, axis=self.axis)

    def backward(self, gy: Any) -> Any:
        ends = list(itertools.accumulate(self.sizes))
        before = (slice(None),) * self.axis
        return tuple(gy[*before, end - size : end] for size, end in zip(self.sizes, ends, strict=True))


@dataclass(eq=False)
class Pad(Function):
    """y = x with `value` around it: `pads` is (before, after) for each axis, below 0 to cut off. gx = gy inside.

    Saves nothing but the shape.
    """

    pads: tuple[tuple[int, int], ...]
    value: float

    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        y = array_module(x).full(
            [size + before + after for size, (before, after) in zip(x.shape, self.pads, strict=True)],
            self.value, dtype=x.dtype,
        )  # fmt: skip
        inside, used = self._places()
        y[inside] = x[used]
        return y

    def backward(self, gy: Any) -> Any:
        gx = array_module(gy).zeros(self.shape, dtype=gy.dtype)
        inside, used = self._places()
        gx[used] = gy[inside]
        return gx

    def _places(self) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where x's elements lie in y, and which of x these are."""
        inside, used = [], []
        for size, (before, after) in zip(self.shape, self.pads, strict=True):
            first, last = max(-before, 0), size - max(-after, 0)
            inside.append(slice(first + before, last + before))
            used.append(slice(first, last))
        return tuple(inside), tuple(used)


def reshape(input: Any, *shape: Any) -> Any:
    """`input` under another shape, in which one size may be -1: what is left. Raises ShapeError if the sizes differ."""
    input = as_tensor(input)
    sizes = integers("reshape", shape)
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
    order = tuple(dimension("permute", d, input.ndim) for d in integers("permute", dims))
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


def squeeze(input: Any, dim: int | tuple[int, ...] | None = None) -> Any:
    """`input` without its dimensions of size 1, or without those of `dim` that are. () names none."""
    input = as_tensor(input)
    axes = () if isinstance(dim, (tuple, list)) and not dim else dimensions("squeeze", dim, input.ndim)
    return reshape(input, [size for axis, size in enumerate(input.shape) if size != 1 or axis not in axes])


def unsqueeze(input: Any, dim: int) -> Any:
    """`input` with a new dimension of size 1, which is dimension `dim` of the result."""
    input = as_tensor(input)
    axis = dimension("unsqueeze", dim, input.ndim + 1)
    return reshape(input, (*input.shape[:axis], 1, *input.shape[axis:]))


def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Any:
    """`input` with dimension `dim` made several, of which one size may be -1. Raises ShapeError if they do not fit."""
    input = as_tensor(input)
    axis, sizes = dimension("unflatten", dim, input.ndim), integers("unflatten", (sizes,))
    size, known = math.prod(input.shape[axis : axis + 1]), math.prod(s for s in sizes if s != -1)
    parts = [size // (known or 1) if s == -1 else s for s in sizes]
    if not parts or min(parts) < 0 or math.prod(parts) != size or sizes.count(-1) > (known > 0):
        raise ShapeError(f"unflatten: dimension {dim} of shape {input.shape} cannot become {sizes}")
    return reshape(input, (*input.shape[:axis], *parts, *input.shape[axis + 1 :]))


def expand(input: Any, *shape: Any) -> Any:
    """`input`, repeated along dimensions of size 1 and along new ones in front: a read-only view. -1 keeps a size."""
    input = as_tensor(input)
    sizes = integers("expand", shape)
    old = (-1,) * (len(sizes) - input.ndim) + input.shape
    full = tuple(o if size == -1 else size for size, o in zip(sizes, old, strict=False))
    try:
        fits = np.broadcast_shapes(input.shape, full) == full
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"expand: shape {input.shape} cannot become {sizes}: only sizes of 1 and new ones repeat")
    return Expand(full)(input)


def expand_as(input: Any, other: Any) -> Any:
    """`input` in the shape of `other`."""
    return expand(input, as_tensor(other).shape)


def concatenate(tensors: Any, dim: int = 0) -> Any:
    """The tensors, one after the other along `dim`. Raises ShapeError where their other sizes differ, DTypeError."""
    parts = [as_tensor(t) for t in tensors]
    if not parts or parts[0].ndim == 0:
        raise ShapeError(
            f"concatenate: expects tensors of one dimension or more, not {len(parts)} of none; numbers go to stack()"
        )
    axis = dimension("concatenate", dim, parts[0].ndim)
    shapes, dtypes = [t.shape for t in parts], [str(t.dtype) for t in parts]
    if len({(len(s), s[:axis], s[axis + 1 :]) for s in shapes}) > 1:
        raise ShapeError(f"concatenate: shapes {', '.join(map(str, shapes))} differ in more than dimension {axis}")
    if len(set(dtypes)) > 1:
        raise DTypeError(f"concatenate: one dtype expected, not {', '.join(dtypes)}; convert with .to('float32')")
    return Concatenate(axis)(*parts)


cat = concatenate


def stack(tensors: Any, dim: int = 0) -> Any:
    """The tensors, all of one shape, along a new dimension. Raises ShapeError, DTypeError."""
    parts = [as_tensor(t) for t in tensors]
    shapes = [t.shape for t in parts]
    if len(set(shapes)) != 1:
        raise ShapeError(f"stack: expects one shape, not {', '.join(map(str, shapes)) or 'an empty list'}")
    return concatenate([unsqueeze(t, dim) for t in parts], dim)


def split(tensor: Any, split_size_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    """Views of `tensor`, one after the other along `dim`: of a size, the last perhaps less, or of a list of sizes."""
    tensor = as_tensor(tensor)
    axis, wanted = dimension("split", dim, tensor.ndim), split_size_or_sections
    size = tensor.size(axis) if tensor.ndim else 0
    if isinstance(wanted, (int, np.integer)):
        sizes = [min(wanted, size - start) for start in range(0, size, max(wanted, 1))] or [0]
    else:
        sizes = list(integers("split", (wanted,)))
    if tensor.ndim == 0 or sum(sizes) != size or min(sizes, default=-1) < 0:
        raise ShapeError(f"split: dimension {dim} of shape {tensor.shape} does not split into {wanted}")
    ends = itertools.accumulate(sizes)
    before = (slice(None),) * axis
    return tuple(index(tensor, (*before, slice(end - n, end))) for n, end in zip(sizes, ends, strict=True))


def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """Views of `input` along `dim`: `chunks` of one size, or fewer if the size does not divide."""
    input = as_tensor(input)
    if not isinstance(chunks, (int, np.integer)) or chunks < 1:
        raise ArgumentError(f"chunk: at least 1 chunk expected, not {chunks!r}")
    size = input.size(dimension("chunk", dim, input.ndim)) if input.ndim else 0
    return split(input, math.ceil(size / chunks) or [0] * chunks, dim)


# For each way to continue an axis of a size: the places in it that stand at places outside.
CONTINUED = {
    "reflect": lambda places, size: size - 1 - abs(size - 1 - abs(places)),
    "replicate": lambda places, size: array_module(places).clip(places, 0, size - 1),
}


def _held(input: Any, value: Any) -> Any:
    """What stands in the border, a number that input's dtype holds. Raises ArgumentError, DTypeError."""
    value = number(value)
    if not is_scalar(value):
        raise ArgumentError(f"pad: value must be a number, not {value!r}")
    try:
        np.empty((), input.dtype)[...] = value if input.dtype.kind != "f" else 0
    except (ValueError, OverflowError):  # NaN, or 300 for uint8
        raise DTypeError(f"pad: {input.dtype} does not hold {value}; convert with .to('float32')") from None
    return value


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """`input` with a border: `pad` holds (before, after) for the last dimension, then for the last but one, and so on.

    So the channels come first: `pad(x, (0, 0, 1, 1, 2, 2))` puts 1 column on each side of an (N, H, W, C) image and
    2 rows above and below. `mode` is "constant" (`value`, 0 if not given; a number below 0 cuts off), "reflect"
    (mirrored, without the edge itself) or "replicate" (the edge). Raises ArgumentError, ShapeError.
    """
    input, amounts = as_tensor(input), integers("pad", (pad,))
    if len(amounts) % 2 or len(amounts) > 2 * input.ndim:
        raise ArgumentError(
            f"pad: pad must hold two ints for each of the last dimensions of {input.shape}, not {amounts}"
        )
    pads = [(0, 0)] * (input.ndim - len(amounts) // 2)
    pads += [(amounts[i], amounts[i + 1]) for i in range(len(amounts) - 2, -1, -2)]
    if mode == "constant":
        if any(
            size + min(before, 0) + min(after, 0) < 0 for size, (before, after) in zip(input.shape, pads, strict=True)
        ):
            raise ShapeError(f"pad: {amounts} cuts off more of {input.shape} than there is")
        return Pad(tuple(pads), _held(input, 0 if value is None else value))(input)
    if mode not in CONTINUED or value is not None:
        raise ArgumentError(
            f"pad: mode must be 'constant', 'reflect' or 'replicate', and value goes with the first, "
            f"not mode {mode!r} with value {value}"
        )
    for axis, (before, after) in enumerate(pads):
        if before == after == 0:
            continue
        size, least = input.shape[axis], max(before, after) + 1 if mode == "reflect" else 1
        if min(before, after) < 0 or size < least:
            raise ShapeError(
                f"pad: mode {mode!r} needs numbers of at least 0, and {least} elements or more for {(before, after)}, "
                f"but dimension {axis} of {input.shape} has {size}"
            )
        places = CONTINUED[mode](array_module(input.data).arange(-before, size + after), size)
        input = index(input, (*(slice(None),) * axis, places))
    return input
