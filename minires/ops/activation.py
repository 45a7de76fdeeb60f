"""Activations: the nonlinear functions between layers, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..autograd import Function
from ..device import array_module
from ..errors import ArgumentError
from ..kernels import gelu as gelu_kernel
from ..kernels import (
    gelu_grad,
    gelu_tanh,
    gelu_tanh_grad,
    leaky_relu_grad,
    relu_grad,
    sigmoid_grad,
    silu_grad,
    tanh_grad,
)
from ..kernels import leaky_relu as leaky_relu_kernel
from ..kernels import relu as relu_kernel
from ..kernels import sigmoid as sigmoid_kernel
from ..kernels import silu as silu_kernel
from .checks import as_tensor, check_float, number_within
from .dtypes import real


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
class LeakyReLU(Function):
    """y = x where x > 0, else slope * x (Maas, Hannun and Ng, 2013). gx = gy where x > 0, else slope * gy.

    Saves x, not y as ReLU does: with a negative slope, y is positive on both sides of 0.
    """

    slope: float

    def forward(self, x: Any) -> Any:
        self.save(x)
        return leaky_relu_kernel(x, self.slope)

    def backward(self, gy: Any) -> Any:
        return leaky_relu_grad(gy, self.saved[0], self.slope)


@dataclass(eq=False)
class Sigmoid(Function):
    """y = 1 / (1 + exp(-x)), the logistic function. gx = gy * y * (1 - y). Saves y, which the next layer keeps."""

    def forward(self, x: Any) -> Any:
        y = sigmoid_kernel(x)
        self.save(y)
        return y

    def backward(self, gy: Any) -> Any:
        return sigmoid_grad(gy, self.saved[0])


@dataclass(eq=False)
class Tanh(Function):
    """y = tanh(x). gx = gy * (1 - y^2). Saves y, which the next layer keeps."""

    def forward(self, x: Any) -> Any:
        y = array_module(x).tanh(x)
        self.save(y)
        return y

    def backward(self, gy: Any) -> Any:
        return tanh_grad(gy, self.saved[0])


@dataclass(eq=False)
class SiLU(Function):
    """y = x * s, s = sigmoid(x) (Elfwing, Uchibe and Doya, 2017). gx = gy * (s + x * s * (1 - s)).

    Saves x: y has a minimum at -1.28, so that two x have the same y.
    """

    def forward(self, x: Any) -> Any:
        self.save(x)
        return silu_kernel(x)

    def backward(self, gy: Any) -> Any:
        return silu_grad(gy, self.saved[0])


@dataclass(eq=False)
class GELU(Function):
    """y = x * P(x), P the share of a standard normal variable below x (Hendrycks and Gimpel, 2016).

    Forward   P(x) = erfc(-x/sqrt(2))/2; or, with "tanh", (1 + tanh(u))/2 = sigmoid(2u),
              u = sqrt(2/pi) * (x + 0.044715 x^3)
    Backward  gx = gy * (P + x * P'), P' being the density exp(-x^2/2)/sqrt(2 pi); or P * (1 - P) * 2 du/dx
    Saves     x: y has a minimum at -0.75, so that two x have the same y
    """

    approximate: str

    def forward(self, x: Any) -> Any:
        self.save(x)
        return gelu_tanh(x) if self.approximate == "tanh" else gelu_kernel(x)

    def backward(self, gy: Any) -> Any:
        return (gelu_tanh_grad if self.approximate == "tanh" else gelu_grad)(gy, self.saved[0])


def relu(input: Any) -> Any:
    """max(input, 0)."""
    return ReLU()(as_tensor(input))


def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    """input where it is positive, else negative_slope * input."""
    input = as_tensor(input)
    check_float("leaky_relu", input=input)
    return LeakyReLU(number_within("leaky_relu", "negative_slope", negative_slope))(input)


def sigmoid(input: Any) -> Any:
    """1 / (1 + exp(-input)); integers give float32."""
    return Sigmoid()(real(input))


def tanh(input: Any) -> Any:
    """The hyperbolic tangent; integers give float32."""
    return Tanh()(real(input))


def silu(input: Any) -> Any:
    """input * sigmoid(input), also known as swish."""
    input = as_tensor(input)
    check_float("silu", input=input)
    return SiLU()(input)


def gelu(input: Any, approximate: str = "none") -> Any:
    """input times the share of a standard normal variable below it; approximate="tanh" takes a shorter formula."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh', not {approximate!r}")
    input = as_tensor(input)
    check_float("gelu", input=input)
    return GELU(approximate)(input)
