"""Which element type an op works in: casts, and what two operands have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, is_tensor
from ..errors import DTypeError, ShapeError
from .checks import as_tensor


@dataclass(eq=False)
class Cast(Function):
    """y = x in another dtype. gx = gy in x's dtype."""

    dtype: Any

    def forward(self, x: Any) -> Any:
        self.source = x.dtype
        return x.astype(self.dtype)

    def backward(self, gy: Any) -> Any:
        return gy.astype(self.source)


def is_scalar(value: Any) -> bool:
    """Whether a value is a Python number, which takes the dtype of what it meets."""
    return isinstance(value, (bool, int, float))


def number(value: Any) -> Any:
    """A NumPy scalar as a Python number, else the value: np.sqrt(2) is a number, not float64 data."""
    return value.item() if isinstance(value, np.generic) else value


def cast(input: Any, dtype: Any) -> Any:
    """`input` in another dtype; itself if it is of that dtype already. Without graph where the dtype is no float."""
    dtype = np.dtype(dtype)
    if input.dtype == dtype:
        return input
    return Cast(dtype)(input if dtype.kind == "f" else input.detach())


def operands(op: str, a: Any, b: Any, to_float: bool = False) -> tuple[Any, Any]:
    """Both in one dtype: floats win over integers, wide over narrow, tensors over Python numbers.

    With `to_float` integers become float32, as everywhere where a result is not an integer. Raises ShapeError where
    shapes do not broadcast, DTypeError for what is no number, or none that the other's integer type holds.
    """
    a, b = (number(v) if is_scalar(number(v)) else as_tensor(v) for v in (a, b))
    tensors = [v for v in (a, b) if is_tensor(v)]
    for kinds in ("f", "iu", "b"):  # the strongest kind that is there decides
        found = [v for v in tensors if v.dtype.kind in kinds]
        if found:
            break
    floating = bool(found) and kinds == "f"
    if not found or (not floating and (to_float or any(isinstance(v, float) for v in (a, b)))):
        dtype: Any = np.dtype(np.float32)
    else:  # as in PyTorch, one without dimensions does not widen one of its kind that has some
        dtype = np.result_type(*(v.dtype for v in [v for v in found if v.ndim] or found))
    a, b = (cast(v, dtype) if is_tensor(v) else v for v in (a, b))
    if tensors and dtype.kind in "iub":  # beside booleans, a Python int is an int64
        holds = np.iinfo(dtype if dtype.kind != "b" else np.int64)
        for v in (a, b):
            if is_scalar(v) and not holds.min <= v <= holds.max:
                raise DTypeError(f"{op}: {holds.dtype} does not hold {v}; convert with .to('int64') or .to('float32')")
    check_broadcast(op, *(v for v in (a, b) if is_tensor(v)))
    if not tensors:
        a = as_tensor(float(a) if to_float or isinstance(b, float) else a)
    return a, b


def check_broadcast(op: str, *tensors: Any) -> None:
    """Their shapes broadcast. Raises ShapeError."""
    shapes = [t.shape for t in tensors]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        given = " and ".join(map(str, shapes))
        raise ShapeError(f"{op}: shapes {given} do not broadcast: from the right, sizes must be equal or 1") from None


def real(x: Any) -> Any:
    """A float tensor; integers become float32, as in PyTorch."""
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else cast(x, np.float32)
