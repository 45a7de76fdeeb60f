"""Checks of arguments that several ops share. Their messages name the op, the shapes and the remedy."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..autograd import is_tensor, wrap
from ..errors import ArgumentError, DTypeError, RangeError, ShapeError
from ..kernels import ConvGeometry

Pair = int | tuple[int, int]
Padding = str | Pair | tuple[tuple[int, int], tuple[int, int]]


def as_tensor(value: Any) -> Any:
    """A Tensor as it is; an array, a list or a number as a Tensor without graph."""
    return value if is_tensor(value) else wrap(value)


def check_float(op: str, **tensors: Any) -> None:
    """All are of one floating type. Raises DTypeError."""
    dtypes = {name: t.dtype for name, t in tensors.items() if t is not None}
    kinds = set(dtypes.values())
    if len(kinds) == 1 and kinds.pop().kind == "f":  # before the message is written: this runs at every call
        return
    given = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
    for name, dtype in dtypes.items():
        if dtype.kind != "f":
            remedy = (
                "scale images with a transform such as data.Normalize"
                if dtype == np.uint8
                else f"convert it with {name}.to('float32')"
            )
            raise DTypeError(f"{op}: {name} must be of a floating type, but {given}; {remedy}")
    if dtypes:
        raise DTypeError(
            f"{op}: one dtype expected, but {given}; convert with .to('float32'), or array.astype('float32')"
        )


def check_parameters(op: str, input: Any, **tensors: Any) -> None:
    """All are of one floating type; those beside a float16 input may be float32, as under PyTorch's autocast."""
    fits = [np.float32] if input.dtype == np.float16 else []
    check_float(op, input=input, **{name: t for name, t in tensors.items() if t is not None and t.dtype not in fits})


def check_images(op: str, x: Any, channels: int | None = None, where: str = "") -> None:
    """x is (N, H, W, C), with C = channels if given. Recognises (N, C, H, W). Raises ShapeError."""
    if x.ndim != 4:
        raise ShapeError(f"{op}: input must be (N, H, W, C), but has shape {x.shape}{_add_batch_axis(x)}")
    if channels is None or x.shape[3] == channels:
        return
    message = f"{op}: input {x.shape} has {x.shape[3]} channels in its last axis, but {where} expects {channels}"
    if x.shape[1] == channels:
        message += "; it looks like (N, C, H, W): minires is channels-last, pass x.permute(0, 2, 3, 1)"
    raise ShapeError(message)


def _add_batch_axis(x: Any) -> str:
    return "; a single image is x.reshape(1, *x.shape)" if x.ndim == 3 else ""


def pair(op: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """An int, or two, each at least `least`, as two. Raises ArgumentError."""
    both = (value, value) if isinstance(value, (int, np.integer)) else value
    good = isinstance(both, (tuple, list)) and len(both) == 2 and all(isinstance(v, (int, np.integer)) for v in both)
    if not good or min(both) < least:
        raise ArgumentError(f"{op}: {name} must be one int or two, of at least {least}, not {value!r}")
    return int(both[0]), int(both[1])


def number_within(op: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A number in [low, high] as a float. Raises ArgumentError for another one, NaN, or what is no number."""
    known = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not known or not low <= value <= high:
        raise ArgumentError(f"{op}: {name} must be a number in [{low:g}, {high:g}], not {value!r}")
    return float(value)


def paddings(op: str, padding: Padding) -> Any:
    """A padding as ((top, bottom), (left, right)), or "same", whose size depends on the image. Raises ArgumentError."""
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ArgumentError(f"{op}: padding must be 'same', 'valid' or ints, not {padding!r}")
        return padding if padding == "same" else ((0, 0), (0, 0))
    if isinstance(padding, (tuple, list)) and len(padding) == 2 and all(isinstance(p, (tuple, list)) for p in padding):
        return pair(op, "padding", padding[0], 0), pair(op, "padding", padding[1], 0)
    rows, columns = pair(op, "padding", padding, 0)
    return (rows, rows), (columns, columns)


def window(
    op: str,
    x: Any,
    kernel: tuple[int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair = 1,
    groups: int = 1,
    ceil_mode: bool = False,
) -> ConvGeometry:
    """The geometry of a window that moves over images x, and fits into them. Raises ArgumentError or ShapeError."""
    steps, spread, given = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1), paddings(op, padding)
    extent = ConvGeometry(dilation=spread).extent(kernel)
    axes = list(zip(x.shape[1:3], steps, extent, strict=True))
    pads = [_same(*axis) for axis in axes] if given == "same" else given
    if ceil_mode:
        pads = [_with_rest(*axis, *pad) for axis, pad in zip(axes, pads, strict=True)]
    height, width = x.shape[1] + sum(pads[0]), x.shape[2] + sum(pads[1])
    if height < extent[0] or width < extent[1]:
        spread_out = f" with dilation {spread}" if spread != (1, 1) else ""
        raise ShapeError(
            f"{op}: a window of {kernel[0]}x{kernel[1]}{spread_out} does not fit into the padded input of "
            f"{height}x{width} (input {x.shape}); pad more or use a larger image"
        )
    return ConvGeometry(steps, (*pads[0], *pads[1]), spread, groups)


def _same(size: int, stride: int, extent: int) -> tuple[int, int]:
    """Padding before and after for ceil(size / stride) windows, as in TensorFlow: the odd one after."""
    total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def _with_rest(size: int, stride: int, extent: int, before: int, after: int) -> tuple[int, int]:
    """Padding for a last window over the rest that whole ones leave, if it starts before the padding after."""
    last = -(-(size + before + after - extent) // stride) * stride
    return before, max(after, last + extent - size - before) if 0 <= last < size + before else after


def integers(op: str, given: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes or dimensions, each an argument of its own or all of them in the first. Raises ArgumentError."""
    values = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list, np.ndarray)) else given
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:  # int() would take 2.9 for 2
        raise ArgumentError(f"{op}: ints expected, not {values}") from None


def dimension(op: str, dim: int, ndim: int) -> int:
    """A dimension counted from either end, counted from the first. Raises RangeError, ArgumentError for no int."""
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)):  # True: the keepdim or unbiased of another op
        raise ArgumentError(f"{op}: a dimension is an int, not {dim!r}")
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise RangeError(f"{op}: dimension {dim} is out of range for a tensor of {ndim} dimension(s)")
    return dim % max(ndim, 1)


def dimensions(op: str, dim: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """None or () (all), one dimension or several, from the first. Raises RangeError, ArgumentError for repeats."""
    named = dim if isinstance(dim, (tuple, list)) else () if dim is None else (dim,)
    if not named:
        return tuple(range(ndim))
    axes = tuple(dimension(op, d, ndim) for d in named)
    if len(set(axes)) < len(axes):
        raise ArgumentError(f"{op}: a dimension stands twice in {dim}")
    return axes if ndim else ()
