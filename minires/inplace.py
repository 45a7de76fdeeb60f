"""Writes into a tensor's own memory: outside of the graph only, and counted, so that backward notices them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .autograd import is_grad_enabled, is_tensor
from .convert import to_array
from .device import array_module, check_one_device, to_device
from .errors import DTypeError, GraphError, RangeError, ShapeError
from .kernels.dispatch import quiet
from .ops.dtypes import is_scalar, number, operands
from .ops.index import index_parts


def _check(op: str, tensor: Any, other: Any) -> None:
    if is_grad_enabled() and (tensor.requires_grad or (is_tensor(other) and other.requires_grad)):
        raise GraphError(f"{op} writes in place, which is not recorded; write it out of place, or use no_grad()")
    array = tensor.data
    repeats = any(stride == 0 and size > 1 for stride, size in zip(array.strides, array.shape, strict=True))
    if (repeats and array.size) or not getattr(
        array.flags, "writeable", True
    ):  # what is expanded is read-only in NumPy, not in CuPy
        raise GraphError(f"{op} into a read-only array; clone() it first")


def update(tensor: Any, op: str, ufunc: str, other: Any) -> Any:
    """`tensor op other`, such as `x += y`, by the ufunc of that name; returns the tensor.

    Raises GraphError where it would have to be recorded, and for read-only arrays; ShapeError, DTypeError, DeviceError.
    """
    _check(op, tensor, other)
    _, other = operands(op, tensor.detach(), other)
    array, value = tensor.data, other.data if is_tensor(other) else other
    check_one_device(op, [array, value] if is_tensor(other) else [array])
    try:
        with quiet():
            getattr(array_module(array), ufunc)(array, value, out=array)
    except TypeError as error:
        raise DTypeError(f"{op}: {error}") from None
    except ValueError as error:
        raise ShapeError(f"{op}: {error}") from None
    tensor.version.count += 1
    return tensor


def assign(tensor: Any, where: Any, value: Any) -> None:
    """`tensor[where] = value`, by the indices that reading takes. A list or an array goes to the tensor's device.

    Raises as `update` does, and RangeError outside the shape.
    """
    _check("item assignment", tensor, value)
    parts = index_parts("item assignment", tensor, where)
    place = tuple(part.data if is_tensor(part) else part for part in parts)
    arrays = [part.data for part in (tensor, *parts, value) if is_tensor(part)]
    check_one_device("item assignment", arrays)
    value = value.data if is_tensor(value) else value
    try:
        with quiet():
            to_array(value)  # refuses what holds no numbers: NumPy would make NaN of None
            if tensor.device != "cpu" and not is_scalar(number(value)):  # CuPy takes none but its own
                value = to_device(value if hasattr(value, "dtype") else np.asarray(value), tensor.device)
            tensor.data[place] = value
        tensor.version.count += 1
    except IndexError as error:
        raise RangeError(f"item assignment: {where!r} does not fit shape {tensor.shape}: {error}") from None
    except OverflowError as error:
        raise DTypeError(f"item assignment: {error}") from None
    except ValueError as error:
        raise ShapeError(f"item assignment: {error}") from None
