"""Checks of arguments that several ops share. Their messages name the op, the shapes and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import is_tensor, wrap
from ..device import array_module
from ..errors import ArgumentError, DTypeError, RangeError, ShapeError

Pair = int | tuple[int, int]


def as_tensor(value: Any) -> Any:
    """A Tensor as it is; an array, a list or a number as a Tensor without graph."""
    return value if is_tensor(value) else wrap(value)


def check_float(op: str, **tensors: Any) -> None:
    """All are of one floating type. Raises DTypeError."""
    dtypes = {name: t.dtype for name, t in tensors.items() if t is not None}
    given = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
    for name, dtype in dtypes.items():
        if dtype.kind != "f":
            remedy = (
                "scale images with a transform such as data.Normalize"
                if dtype == np.uint8
                else f"convert it with {name}.to('float32')"
            )
            raise DTypeError(f"{op}: {name} must be of a floating type, but {given}; {remedy}")
    if len(set(dtypes.values())) > 1:
        raise DTypeError(
            f"{op}: one dtype expected, but {given}; convert with .to('float32'), or array.astype('float32')"
        )


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


def pair(op: str, name: str, value: Pair, least: int) -> tuple[int, int]:
    """An int, or two, each at least `least`, as two. Raises ArgumentError."""
    both = (value, value) if isinstance(value, (int, np.integer)) else value
    good = isinstance(both, (tuple, list)) and len(both) == 2 and all(isinstance(v, (int, np.integer)) for v in both)
    if not good or min(both) < least:
        raise ArgumentError(f"{op}: {name} must be one int or two, of at least {least}, not {value!r}")
    return int(both[0]), int(both[1])


def check_window(op: str, x: Any, kernel: tuple[int, int], padding: tuple[int, int, int, int]) -> None:
    """The window fits into the padded image. Raises ShapeError."""
    height, width = x.shape[1] + padding[0] + padding[1], x.shape[2] + padding[2] + padding[3]
    if height < kernel[0] or width < kernel[1]:
        raise ShapeError(
            f"{op}: a window of {kernel[0]}x{kernel[1]} does not fit into the padded input of {height}x{width} "
            f"(input {x.shape}); pad more or use a larger image"
        )


def dimension(op: str, dim: int, ndim: int) -> int:
    """A dimension counted from either end, counted from the first. Raises RangeError."""
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise RangeError(f"{op}: dimension {dim} is out of range for a tensor of {ndim} dimension(s)")
    return dim % max(ndim, 1)


def dimensions(op: str, dim: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    """None or () (all), one dimension or several, from the first. Raises RangeError, ArgumentError for repeats."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    axes = tuple(dimension(op, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,)))
    if len(set(axes)) < len(axes):
        raise ArgumentError(f"{op}: a dimension stands twice in {dim}")
    return axes if ndim else ()


def check_labels(op: str, target: Any, rows: int, classes: int) -> None:
    """target is (rows,) integers in [0, classes). Raises ShapeError, DTypeError, RangeError."""
    if target.dtype.kind not in "iu":
        raise DTypeError(f"{op}: target must hold class numbers of an integer type, not {target.dtype}")
    if target.shape != (rows,):
        raise ShapeError(
            f"{op}: target has shape {target.shape}, but input has {rows} rows; one class number a row is needed"
        )
    if array_module(target) is np and rows:  # on a GPU a look would wait for the device; labels are checked when loaded
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= classes:
            raise RangeError(
                f"{op}: target holds class {low if low < 0 else high}, but input has {classes} classes, counted from 0"
            )
