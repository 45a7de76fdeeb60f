"""What users write for data, dtypes and devices, as arrays and names."""

from __future__ import annotations

from typing import Any

import numpy as np

from .device import Array
from .errors import ArgumentError, DTypeError, ShapeError


def to_array(data: Any, dtype: Any = None) -> Array:
    """Numbers, nested lists or an array of any library as an array, in `dtype` if given; an array is not copied.

    Python floats become float32. Raises DTypeError for what holds no numbers, ShapeError for ragged lists.
    """
    if hasattr(data, "dtype"):
        array = data if type(data).__module__.partition(".")[0] == "cupy" else np.asarray(data)
    else:
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise ShapeError(f"Tensor: {error}") from None
        if array.dtype == np.float64 and dtype is None:
            array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"Tensor: takes numbers, not {array.dtype} ({type(data).__name__})")
    return array if dtype is None or array.dtype == (dtype := to_dtype(dtype)) else array.astype(dtype)


def to_dtype(dtype: Any) -> np.dtype[Any]:
    """A NumPy dtype. Raises DTypeError for what is none."""
    try:
        return np.dtype(dtype)
    except TypeError:
        raise DTypeError(
            f"Tensor: {dtype!r} is no dtype; for a tensor of a shape write Tensor(np.zeros(shape))"
        ) from None


def parse_to(args: tuple[Any, ...], device: str | None, dtype: Any) -> tuple[str | None, Any]:
    """The arguments of `to`, in which a device and a dtype may stand by position. Raises ArgumentError."""
    for value in (v for v in args if v is not None):
        if isinstance(value, str) and (value in ("cpu", "auto") or value.startswith("cuda")):
            device = value
            continue
        try:
            dtype = np.dtype(value)
        except TypeError:
            raise ArgumentError(f"to({value!r}): neither a device ('cpu', 'cuda', 'cuda:1') nor a dtype") from None
    return device, None if dtype is None else np.dtype(dtype)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32 numbers of bfloat16 ones, given as uint16: they are float32's upper halves, so nothing is lost."""
    return (bits.astype(np.uint32) << 16).reshape(bits.shape).view(np.float32)
