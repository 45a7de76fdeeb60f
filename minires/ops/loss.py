"""Softmax and the losses of classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..autograd import Function
from ..device import array_module
from ..errors import ArgumentError, ShapeError
from ..kernels import cross_entropy as cross_entropy_kernel
from ..kernels import cross_entropy_grad, sum_axes
from ..kernels import log_softmax as log_softmax_kernel
from ..kernels import softmax as softmax_kernel
from .checks import as_tensor, check_float, check_labels, dimension
from .reduce import mean, sum
from .shape import reshape


@dataclass(eq=False)
class Softmax(Function):
    """Probabilities from logits.

    Shapes    z, y alike; sums run along `axis`
    Forward   y = exp(z - max) / sum(exp(z - max)): the shift cancels, and exp cannot overflow
    Backward  gz = y * (gy - sum(gy * y))
    Saves     y
    """

    axis: int

    def forward(self, z: Any) -> Any:
        y = softmax_kernel(z, self.axis)
        self.save(y)
        return y

    def backward(self, gy: Any) -> Any:
        (y,) = self.saved
        return y * (gy - sum_axes(gy * y, (self.axis,), True))


@dataclass(eq=False)
class LogSoftmax(Function):
    """Logarithms of the softmax, without its underflow.

    Shapes    z, y alike; sums run along `axis`
    Forward   y = (z - max) - log1p(sum of exp(z - max) over all but the maximum)
    Backward  gz = gy - exp(y) * sum(gy)
    Saves     y
    """

    axis: int

    def forward(self, z: Any) -> Any:
        y = log_softmax_kernel(z, self.axis)
        self.save(y)
        return y

    def backward(self, gy: Any) -> Any:
        (y,) = self.saved
        return gy - array_module(y).exp(y) * sum_axes(gy, (self.axis,), True)


@dataclass(eq=False)
class NLLLoss(Function):
    """The negative of each row's entry at its target.

    Shapes    x (N, C); target (N,) integers; y (N,)
    Forward   y = -x[n, target[n]]
    Backward  gx = -gy at the target, 0 elsewhere
    Saves     target
    """

    def forward(self, x: Any, target: Any) -> Any:
        self.save(target)
        self.shape = x.shape
        return -x[array_module(x).arange(len(x)), target]

    def backward(self, gy: Any) -> Any:
        (target,) = self.saved
        xp = array_module(gy)
        return xp.where(xp.arange(self.shape[1]) == target[:, None], -gy[:, None], 0), None


@dataclass(eq=False)
class CrossEntropy(Function):
    """Softmax and negative log-likelihood in one.

    Shapes    z (N, C); target (N,) integers; y (N,)
    Forward   y = (max - z[target]) + log1p(sum of exp(z - max) over all but the maximum)
    Backward  gz = gy * (p - onehot(target)), p = softmax(z). The target's entry, p - 1, is minus the sum of the others'
              p, computed so: p - 1 is 0 once p rounds to 1
    Saves     z, target. p is made anew in backward: N*C is small beside the activations
    """

    def forward(self, z: Any, target: Any) -> Any:
        self.save(z, target)
        return cross_entropy_kernel(z, target)

    def backward(self, gy: Any) -> Any:
        z, target = self.saved
        return cross_entropy_grad(gy, z, target), None


def _reduce(op: str, losses: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"{op}: reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    return mean(losses) if reduction == "mean" else sum(losses)


def _check(op: str, input: Any, target: Any) -> tuple[Any, Any]:
    input, target = as_tensor(input), as_tensor(target)
    check_float(op, input=input)
    if input.ndim != 2:
        raise ShapeError(f"{op}: input must be (N, C), one row of class scores an example, but has shape {input.shape}")
    check_labels(op, target.data, *input.shape)
    return input, target


def _along(op: str, function: type[Softmax] | type[LogSoftmax], input: Any, dim: int) -> Any:
    input = as_tensor(input)
    check_float(op, input=input)
    axis = dimension(op, dim, input.ndim)
    return function(axis)(input) if input.ndim else reshape(function(0)(reshape(input, 1)), ())


def softmax(input: Any, dim: int) -> Any:
    """exp(input), scaled to sum 1 along `dim`."""
    return _along("softmax", Softmax, input, dim)


def log_softmax(input: Any, dim: int) -> Any:
    """The logarithm of softmax(input, dim)."""
    return _along("log_softmax", LogSoftmax, input, dim)


def nll_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Minus the entry of input (N, C) at target (N,), averaged. The mean of nothing is NaN.

    Raises RangeError for a target outside [0, C), ShapeError, DTypeError.
    """
    input, target = _check("nll_loss", input, target)
    return _reduce("nll_loss", NLLLoss()(input, target), reduction)


def cross_entropy(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Softmax cross-entropy of logits input (N, C) with class numbers target (N,), averaged.

    The mean of nothing is NaN. Raises RangeError for a target outside [0, C), ShapeError, DTypeError.
    """
    input, target = _check("cross_entropy", input, target)
    return _reduce("cross_entropy", CrossEntropy()(input, target), reduction)
