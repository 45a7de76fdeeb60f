"""Element-by-element ops. Where shapes differ they broadcast, and a gradient is summed over what was repeated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, is_tensor
from ..device import array_module
from ..errors import ArgumentError, DTypeError
from ..kernels import sum_to_shape
from .checks import as_tensor
from .dtypes import check_broadcast, is_scalar, number, operands, real


class Binary(Function):
    """A Function of arrays of one dtype that broadcast; one of them may be a Python number.

    A subclass gives `partials`, the gradients before the sum over what was repeated.
    """

    def partials(self, gy: Any) -> tuple[Any, ...]:
        """The inputs' gradients, each of gy's shape. One that is not needed may be anything."""
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
    """y = a / b. ga = gy / b; gb = -gy * a / b^2.

    Saves b, and a if gb is needed: y would save a division, but in float16 it is rounded to three digits, which a sum
    of gradients of both signs loses.
    """

    def forward(self, a: Any, b: Any) -> Any:
        self.save(a if self.needs[1] else None, b)
        return a / b

    def partials(self, gy: Any) -> Any:
        a, b = self.saved
        ga = gy / b
        return ga, -ga * a / b if self.needs[1] else None


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
        a, b = (v if is_scalar(v) else v.astype(gy.dtype, copy=False) for v in (a, b))  # a**(b-1) may overflow float16
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
class Minimum(Binary):
    """y = min(a, b). gy goes to the smaller, half to each where they are equal; NaN passes. Saves a and b."""

    def forward(self, a: Any, b: Any) -> Any:
        self.save(a, b)
        return (array_module(b) if is_scalar(a) else array_module(a)).minimum(a, b)

    def partials(self, gy: Any) -> Any:
        a, b = self.saved
        xp = array_module(gy)
        shared = xp.where(a == b, gy / 2, gy)
        return xp.where(a > b, 0, shared), xp.where(a < b, 0, shared)


@dataclass(eq=False)
class Where(Binary):
    """y = a where the condition c holds, else b. ga = gy where c holds, else 0; gb the other way. Saves c."""

    def forward(self, c: Any, a: Any, b: Any) -> Any:
        self.save(c)
        return array_module(c).where(c, a, b)

    def partials(self, gy: Any) -> Any:
        (c,), xp = self.saved, array_module(gy)
        return None, xp.where(c, gy, 0) if self.needs[1] else None, xp.where(c, 0, gy) if self.needs[2] else None


@dataclass(eq=False)
class Clip(Function):
    """y = x between min and max, else the nearer of them. gx = gy where min <= x <= max, else 0.

    Saves x: y does not tell x = max, whose gradient is gy, from x > max.
    """

    min: float | None
    max: float | None

    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_module(x).clip(x, self.min, self.max)

    def backward(self, gy: Any) -> Any:
        (x,), low, high = self.saved, self.min, self.max
        inside = (x >= (-math.inf if low is None else low)) & (x <= (math.inf if high is None else high))
        return array_module(gy).where(inside, gy, 0)


@dataclass(eq=False)
class Abs(Function):
    """y = |x|. gx = gy * sign(x), 0 at x = 0 and NaN at NaN. Saves x."""

    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_module(x).abs(x)

    def backward(self, gy: Any) -> Any:
        return gy * array_module(gy).sign(self.saved[0])


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


def _refuse_booleans(op: str, what: str, *operands: Any) -> None:
    if any(is_tensor(v) and v.dtype == bool for v in operands):
        raise DTypeError(f"{op}: booleans have no {what} or convert with .to('int64')")


def _signed(op: str, x: Any) -> Any:
    """A tensor of numbers. Raises DTypeError for booleans."""
    x = as_tensor(x)
    _refuse_booleans(op, "sign; compare with == False", x)
    return x


def add(input: Any, other: Any) -> Any:
    """input + other."""
    return Add()(*operands("add", input, other))


def sub(input: Any, other: Any) -> Any:
    """input - other. Raises DTypeError for booleans."""
    a, b = operands("sub", input, other)
    _refuse_booleans("sub", "difference; compare with !=", a, b)
    return Sub()(a, b)


def mul(input: Any, other: Any) -> Any:
    """input * other."""
    return Mul()(*operands("mul", input, other))


def div(input: Any, other: Any) -> Any:
    """input / other; integers give float32."""
    return Div()(*operands("div", input, other, to_float=True))


def pow(input: Any, exponent: Any) -> Any:
    """input ** exponent. Raises ArgumentError for integers to a negative power, DTypeError for booleans."""
    a, b = operands("pow", input, exponent)
    _refuse_booleans("pow", "powers; combine with *", a, b)
    try:
        return Pow()(a, b)
    except ValueError:
        raise ArgumentError("pow: integers have no negative integer powers; convert with .to('float32')") from None


def maximum(input: Any, other: Any) -> Any:
    """The larger of the two, element by element; NaN where either is NaN."""
    return Maximum()(*operands("maximum", input, other))


def minimum(input: Any, other: Any) -> Any:
    """The smaller of the two, element by element; NaN where either is NaN."""
    return Minimum()(*operands("minimum", input, other))


def where(condition: Any, input: Any, other: Any) -> Any:
    """input where the booleans of condition hold, else other. Raises DTypeError for another condition."""
    condition, (a, b) = as_tensor(condition), operands("where", input, other)
    if condition.dtype != bool:
        raise DTypeError(
            f"where: condition must hold booleans, not {condition.dtype}; compare it: where(condition != 0, ...)"
        )
    check_broadcast("where", condition, *(v for v in (a, b) if is_tensor(v)))
    return Where()(condition, a, b)


def clip(input: Any, min: float | None = None, max: float | None = None) -> Any:
    """input, held between the numbers min and max; None is no bound. Where min > max, all of it is max.

    Raises ArgumentError for two Nones, and for bounds that are no numbers.
    """
    min, max = number(min), number(max)
    bounds = [v for v in (min, max) if v is not None]
    if not bounds or not all(map(is_scalar, bounds)):
        raise ArgumentError(
            f"clip: needs a number for min, max or both, not {min!r} and {max!r}; maximum and minimum take tensors"
        )
    for bound in bounds:
        input, _ = operands("clip", input, bound)
    return Clip(min, max)(input)


clamp = clip


def abs(input: Any) -> Any:
    """The absolute value. Raises DTypeError for booleans."""
    return Abs()(_signed("abs", input))


def neg(input: Any) -> Any:
    """-input. Raises DTypeError for booleans."""
    return Neg()(_signed("neg", input))


def exp(input: Any) -> Any:
    """e ** input."""
    return Exp()(real(input))


def log(input: Any) -> Any:
    """The natural logarithm; -inf at 0, NaN below."""
    return Log()(real(input))


def sqrt(input: Any) -> Any:
    """The square root; NaN below 0."""
    return Sqrt()(real(input))
