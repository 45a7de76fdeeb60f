"""Element-by-element ops. Where shapes differ they broadcast, and a gradient is summed over what was repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, is_tensor
from ..device import array_module
from ..errors import ArgumentError, DTypeError, ShapeError
from ..kernels import relu as relu_kernel
from ..kernels import relu_grad, sum_to_shape
from .checks import as_tensor


class Binary(Function):
    """A Function of two arrays of one dtype that broadcast; either may be a Python number.

    A subclass gives `partials`, the gradients before the sum over what was repeated.
    """

    def partials(self, gy: Any) -> tuple[Any, Any]:
        """The two inputs' gradients, each of gy's shape. One that is not needed may be anything."""
        raise NotImplementedError

    def backward(self, gy: Any) -> Any:
        wide = gy.astype(np.float32) if gy.dtype == np.float16 else gy  # products and sums are rounded once, at the end
        return tuple(
            None if edge is None else sum_to_shape(g, edge.shape).astype(gy.dtype, copy=False)
            for g, edge in zip(self.partials(wide), self.inputs, strict=True)
        )


@dataclass(eq=False)
class Add(Binary):
    """y = a + b. ga = gy; gb = gy. Saves nothing: residual addition costs no memory."""

    def forward(self, a: Any, b: Any) -> Any:
        return a + b

    def partials(self, gy: Any) -> Any:
        return gy, gy


@dataclass(eq=False)
class Sub(Binary):
    """y = a - b. ga = gy; gb = -gy. Saves nothing."""

    def forward(self, a: Any, b: Any) -> Any:
        return a - b

    def partials(self, gy: Any) -> Any:
        return gy, -gy if self.needs[1] else None


@dataclass(eq=False)
class Mul(Binary):
    """y = a * b. ga = gy * b; gb = gy * a. Saves b if ga is needed, a if gb is."""

    def forward(self, a: Any, b: Any) -> Any:
        self.save(a if self.needs[1] else None, b if self.needs[0] else None)
        return a * b

    def partials(self, gy: Any) -> Any:
        a, b = self.saved
        return gy * b if self.needs[0] else None, gy * a if self.needs[1] else None


@dataclass(eq=False)
class Div(Binary):
    """y = a / b. ga = gy / b; gb = -gy * y / b. Saves b, and y if gb is needed."""

    def forward(self, a: Any, b: Any) -> Any:
        y = a / b
        self.save(b, y if self.needs[1] else None)
        return y

    def partials(self, gy: Any) -> Any:
        b, y = self.saved
        ga = gy / b
        return ga, -ga * y if self.needs[1] else None


@dataclass(eq=False)
class Pow(Binary):
    """y = a ** b. ga = gy * b * a**(b-1), 0 where b = 0; gb = gy * y * log(a), 0 where a = 0 <= b.

    Saves a, b, and y if gb is needed.
    """

    def forward(self, a: Any, b: Any) -> Any:
        y = a**b
        self.save(a, b, y if self.needs[1] else None)
        return y

    def partials(self, gy: Any) -> Any:
        (a, b, y), ga, gb = self.saved, None, None
        xp = array_module(gy)
        if self.needs[0]:
            ga = gy * (b * a ** (b - 1))
            if is_scalar(b):
                ga = ga if b else xp.zeros_like(ga)
            else:
                ga = xp.where(b == 0, 0, ga)
        if self.needs[1]:
            zero = (a == 0) & (b >= 0)
            gb = xp.where(zero, 0, gy * y * xp.log(xp.where(zero, 1, a).astype(gy.dtype)))
        return ga, gb


@dataclass(eq=False)
class Maximum(Binary):
    """y = max(a, b). gy goes to the larger, half to each where they are equal; NaN passes. Saves a and b."""

    def forward(self, a: Any, b: Any) -> Any:
        self.save(a, b)
        return (array_module(b) if is_scalar(a) else array_module(a)).maximum(a, b)

    def partials(self, gy: Any) -> Any:
        a, b = self.saved
        xp = array_module(gy)
        shared = xp.where(a == b, gy / 2, gy)
        return xp.where(a < b, 0, shared), xp.where(a > b, 0, shared)


@dataclass(eq=False)
class Neg(Function):
    """y = -x. gx = -gy. Saves nothing."""

    def forward(self, x: Any) -> Any:
        return -x

    def backward(self, gy: Any) -> Any:
        return -gy


@dataclass(eq=False)
class Exp(Function):
    """y = exp(x). gx = gy * y. Saves y."""

    def forward(self, x: Any) -> Any:
        y = array_module(x).exp(x)
        self.save(y)
        return y

    def backward(self, gy: Any) -> Any:
        return gy * self.saved[0]


@dataclass(eq=False)
class Log(Function):
    """y = log(x). gx = gy / x. Saves x."""

    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_module(x).log(x)

    def backward(self, gy: Any) -> Any:
        return gy / self.saved[0]


@dataclass(eq=False)
class Sqrt(Function):
    """y = sqrt(x). gx = gy / (2 y), infinite at x = 0. Saves y."""

    def forward(self, x: Any) -> Any:
        y = array_module(x).sqrt(x)
        self.save(y)
        return y

    def backward(self, gy: Any) -> Any:
        return gy / (2 * self.saved[0])


@dataclass(eq=False)
class ReLU(Function):
    """y = max(x, 0) (Nair and Hinton, 2010). gx = gy where y > 0, and 0 at x = 0.

    Saves y, not x: their signs say the same, and y is alive anyway as the next layer's input.
    """

    def forward(self, x: Any) -> Any:
        y = relu_kernel(x)
        self.save(y)
        return y

    def backward(self, gy: Any) -> Any:
        return relu_grad(gy, self.saved[0])


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


def cast(input: Any, dtype: Any) -> Any:
    """`input` in another dtype; itself if it is of that dtype already. Without graph where the dtype is no float."""
    dtype = np.dtype(dtype)
    if input.dtype == dtype:
        return input
    return Cast(dtype)(input if dtype.kind == "f" else input.detach())


def operands(op: str, a: Any, b: Any, to_float: bool = False) -> tuple[Any, Any]:
    """Both in one dtype: floats win over integers, wide over narrow, tensors over Python numbers.

    With `to_float` integers become float32, as everywhere where a result is not an integer. Raises ShapeError where
    shapes do not broadcast, DTypeError for what is no number.
    """
    a, b = (v.item() if isinstance(v, np.generic) else v for v in (a, b))  # np.sqrt(2) is a number, not float64 data
    a, b = (v if is_scalar(v) else as_tensor(v) for v in (a, b))
    tensors = [v for v in (a, b) if is_tensor(v)]
    for kinds in ("f", "iu", "b"):  # the strongest kind that is there decides
        found = [v for v in tensors if v.dtype.kind in kinds]
        if found:
            break
    floating = bool(found) and kinds == "f"
    if not found or (not floating and (to_float or any(isinstance(v, float) for v in (a, b)))):
        dtype = np.dtype(np.float32)
    else:  # as in PyTorch, one without dimensions does not widen one of its kind that has some
        dtype = np.result_type(*(v.dtype for v in [v for v in found if v.ndim] or found))
    a, b = (cast(v, dtype) if is_tensor(v) else v for v in (a, b))
    if is_tensor(a) and is_tensor(b) and a.shape != b.shape:
        try:
            np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise ShapeError(
                f"{op}: shapes {a.shape} and {b.shape} do not broadcast: from the right, sizes must be equal or 1"
            ) from None
    return (as_tensor(a) if is_scalar(a) and is_scalar(b) else a), b


def _real(op: str, x: Any) -> Any:
    """A float tensor; integers become float32, as in PyTorch."""
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else cast(x, np.float32)


def add(input: Any, other: Any) -> Any:
    """input + other."""
    return Add()(*operands("add", input, other))


def sub(input: Any, other: Any) -> Any:
    """input - other. Raises DTypeError for booleans."""
    a, b = operands("sub", input, other)
    if a.dtype == bool if is_tensor(a) else b.dtype == bool:
        raise DTypeError("sub: booleans have no difference; compare with != or convert with .to('int64')")
    return Sub()(a, b)


def mul(input: Any, other: Any) -> Any:
    """input * other."""
    return Mul()(*operands("mul", input, other))


def div(input: Any, other: Any) -> Any:
    """input / other; integers give float32."""
    return Div()(*operands("div", input, other, to_float=True))


def pow(input: Any, exponent: Any) -> Any:
    """input ** exponent. Raises ArgumentError for integers to a negative power."""
    a, b = operands("pow", input, exponent)
    try:
        return Pow()(a, b)
    except ValueError:
        raise ArgumentError("pow: integers have no negative integer powers; convert with .to('float32')") from None


def maximum(input: Any, other: Any) -> Any:
    """The larger of the two, element by element; NaN where either is NaN."""
    return Maximum()(*operands("maximum", input, other))


def neg(input: Any) -> Any:
    """-input. Raises DTypeError for booleans."""
    input = as_tensor(input)
    if input.dtype == bool:
        raise DTypeError("neg: booleans have no negative; compare with == False or convert with .to('int64')")
    return Neg()(input)


def exp(input: Any) -> Any:
    """e ** input."""
    return Exp()(_real("exp", input))


def log(input: Any) -> Any:
    """The natural logarithm; -inf at 0, NaN below."""
    return Log()(_real("log", input))


def sqrt(input: Any) -> Any:
    """The square root; NaN below 0."""
    return Sqrt()(_real("sqrt", input))


def relu(input: Any) -> Any:
    """max(input, 0)."""
    return ReLU()(as_tensor(input))
