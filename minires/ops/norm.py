"""Batch normalisation: in training, in evaluation, and fused with what follows it in a residual block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..autograd import Function, no_grad
from ..device import array_module
from ..errors import DTypeError, ShapeError
from ..kernels import batch_norm_apply, batch_norm_grad, batch_norm_statistics, relu_grad, sum_axes
from .checks import as_tensor, check_float
from .elementwise import add as add_op
from .elementwise import relu as relu_op


def _rows(x: Any) -> Any:
    """(..., C) as (M, C)."""
    return x.reshape(-1, x.shape[-1])


@dataclass(eq=False)
class BatchNorm(Function):
    """Batch normalisation in training (Ioffe and Szegedy, 2015, algorithm 1), channel by channel.

    Shapes    x (..., C), M values a channel; gamma, beta (C,); y (..., C); mean, variance (C,), without gradient
    Forward   mean = sum(x)/M;  variance = sum((x - mean)^2)/M;  s = 1/sqrt(variance + eps), below called invstd
              xhat = (x - mean) * s;  y = gamma * xhat + beta. The mean is kept as hi + lo: see kernels/portable/norm.py
    Backward  gbeta = sum(gy);  ggamma = sum(gy * xhat)
              gx = gamma * s * (gy - gbeta/M - xhat * ggamma/M): the last two terms are there because every x moves
              the mean and the variance of all
    Saves     x, gamma and (C,)-sized statistics. xhat is made anew: one multiplication an element instead of x's size
    Cost      about 8 flops an element forward, 10 backward: it is bound by memory
    """

    eps: float

    def forward(self, x: Any, gamma: Any, beta: Any) -> Any:
        hi, lo, variance, invstd = batch_norm_statistics(_rows(x), self.eps)
        self.save(x, gamma, hi, lo, invstd)
        y = batch_norm_apply(_rows(x), hi, lo, invstd, gamma, beta, None, False)
        return y.reshape(x.shape), hi + lo, variance

    def backward(self, gy: Any) -> Any:
        x, gamma, hi, lo, invstd = self.saved
        gx, ggamma, gbeta = batch_norm_grad(_rows(gy), _rows(x), hi, lo, invstd, gamma)
        return gx.reshape(x.shape), ggamma, gbeta


@dataclass(eq=False)
class BatchNormAddReLU(Function):
    """y = relu(batch_norm(x) + z), the end of a residual block (He et al., 2015, figure 2), in one op; z may be None.

    Shapes    as BatchNorm; z (..., C) like x
    Forward   y = max(gamma * xhat + beta + z, 0)
    Backward  g = gy where y > 0, else 0;  gz = g;  gx, ggamma, gbeta: BatchNorm's, from g
    Saves     BatchNorm's and y, which the next layer keeps anyway; the sum before the ReLU is never stored
    Cost      as BatchNorm: three ops that are bound by memory become one
    """

    eps: float

    def forward(self, x: Any, gamma: Any, beta: Any, z: Any) -> Any:
        hi, lo, variance, invstd = batch_norm_statistics(_rows(x), self.eps)
        y = batch_norm_apply(_rows(x), hi, lo, invstd, gamma, beta, None if z is None else _rows(z), True)
        y = y.reshape(x.shape)
        self.save(x, gamma, hi, lo, invstd, y)
        return y, hi + lo, variance

    def backward(self, gy: Any) -> Any:
        x, gamma, hi, lo, invstd, y = self.saved
        g = relu_grad(gy, y)
        gx, ggamma, gbeta = batch_norm_grad(_rows(g), _rows(x), hi, lo, invstd, gamma)
        return gx.reshape(x.shape), ggamma, gbeta, g


@dataclass(eq=False)
class BatchNormEval(Function):
    """Batch normalisation in evaluation: an affine map, whose mean and variance are constants.

    Shapes    x (..., C); gamma, beta, mean, variance (C,); y (..., C)
    Forward   s = 1/sqrt(variance + eps);  xhat = (x - mean) * s;  y = gamma * xhat + beta
    Backward  gx = gamma * s * gy;  ggamma = sum(gy * xhat);  gbeta = sum(gy)
    Saves     x, gamma, mean, s
    Cost      4 flops an element forward, 5 backward
    """

    eps: float

    def forward(self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        s = 1 / array_module(x).sqrt(variance + x.dtype.type(self.eps))
        self.save(x, gamma, mean, s)
        zero = array_module(x).zeros_like(mean)
        return batch_norm_apply(_rows(x), mean, zero, s, gamma, beta, None, False).reshape(x.shape)

    def backward(self, gy: Any) -> Any:
        x, gamma, mean, s = self.saved
        gx = gy * (gamma * s) if self.needs[0] else None
        ggamma = sum_axes(_rows(gy) * (_rows(x) - mean), (0,)) * s if self.needs[1] else None
        gbeta = sum_axes(_rows(gy), (0,)) if self.needs[2] else None
        return gx, ggamma, gbeta, None, None


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    add: Any = None,
    relu: bool = False,
) -> Any:
    """Normalise each channel of input (..., C), then add `add` and apply ReLU if asked to.

    In training the batch's own statistics are used, and running_mean and running_var, if given, move towards them by
    `momentum`; else those two are used. Raises ShapeError, also for one value a channel in training; DTypeError.
    """
    input = as_tensor(input)
    channels = input.shape[-1] if input.ndim else 0
    xp, dtype = array_module(input.data), input.dtype
    gamma = as_tensor(xp.ones(channels, dtype=dtype) if weight is None else weight)
    beta = as_tensor(xp.zeros(channels, dtype=dtype) if bias is None else bias)
    if isinstance(running_mean, (list, tuple)) or isinstance(running_var, (list, tuple)):
        raise DTypeError(
            "batch_norm: running_mean and running_var are written in place: pass Tensors or arrays, not lists"
        )
    running_mean = None if running_mean is None else as_tensor(running_mean)
    running_var = None if running_var is None else as_tensor(running_var)
    _check(input, channels, weight=gamma, bias=beta, running_mean=running_mean, running_var=running_var)
    z = None if add is None else as_tensor(add)
    if z is not None:
        check_float("batch_norm", input=input, add=z)
        if z.shape != input.shape:
            raise ShapeError(
                f"batch_norm: add has shape {z.shape}, but input {input.shape}; project the shortcut first"
            )
    if not training:
        if running_mean is None or running_var is None:
            raise ShapeError(
                "batch_norm: evaluation needs running_mean and running_var; pass training=True for the batch's"
            )
        y = BatchNormEval(eps)(input, gamma, beta, running_mean, running_var)
        y = y if z is None else add_op(y, z)
        return relu_op(y) if relu else y
    if relu:
        y, mean, variance = BatchNormAddReLU(eps)(_enough(input, channels), gamma, beta, z)
    else:
        y, mean, variance = BatchNorm(eps)(_enough(input, channels), gamma, beta)
        y = y if z is None else add_op(y, z)
    rows = input.numel() // channels
    with no_grad():
        if running_mean is not None and rows:
            running_mean *= 1 - momentum
            running_mean += momentum * mean
        if running_var is not None and rows:  # the batch is normalised with the biased variance, the unbiased is kept
            running_var *= 1 - momentum
            running_var += momentum * variance * (rows / (rows - 1))
    return y


def _enough(input: Any, channels: int) -> Any:
    if input.numel() == channels:
        raise ShapeError(
            f"batch_norm: Expected more than 1 value per channel when training, got input size {input.shape}; "
            "use a larger batch, drop_last=True in the loader, or eval()"
        )
    return input


def _check(input: Any, channels: int, **vectors: Any) -> None:
    for name, v in vectors.items():
        if v is None or v.shape == (channels,):
            continue
        message = (
            f"batch_norm: input {input.shape} has {channels} channels in its last axis, but {name} has shape {v.shape}"
        )
        if input.ndim == 4 and v.shape == input.shape[1:2]:
            message += "; it looks like (N, C, H, W): minires is channels-last, pass x.permute(0, 2, 3, 1)"
        raise ShapeError(message)
    check_float("batch_norm", input=input, **{name: v for name, v in vectors.items() if v is not None})
