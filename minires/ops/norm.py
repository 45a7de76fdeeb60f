"""Batch normalisation (in training, in evaluation, fused with what follows it in a residual block); layer and group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, is_grad_enabled, wrap
from ..device import array_module
from ..errors import ArgumentError, DTypeError, ShapeError
from ..kernels import (
    NormGradients,
    batch_norm_apply,
    batch_norm_eval,
    batch_norm_eval_grad,
    batch_norm_grad,
    batch_norm_relu_grad,
    batch_norm_statistics,
    forget,
    group_norm_grad,
    kept_at,
    quiet,
    relu_grad,
    running_average_,
)
from ..kernels import group_norm as group_norm_kernel
from ..memory import copy
from ..modes import is_anomaly_enabled
from .checks import as_tensor, check_float, check_parameters, integers
from .elementwise import add as add_op


def _rows(x: Any) -> Any:
    """(..., C) as (M, C)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _for_inputs(function: Function, gradients: NormGradients) -> tuple[Any, ...]:
    """The gradients of x, gamma and beta, each in its input's shape and dtype; None where none is wanted."""

    def fitted(g: Any, edge: Any) -> Any:
        g = g if g.shape == edge.shape else g.reshape(edge.shape)  # a view, where it need not be one, a leaf would copy
        return g.astype(edge.dtype, copy=False)

    edges = zip(gradients, function.inputs, strict=False)
    return tuple(None if edge is None else fitted(g, edge) for g, edge in edges)


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
        return _for_inputs(self, batch_norm_grad(_rows(gy), _rows(x), hi, lo, invstd, gamma))


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
        gradients, g = batch_norm_relu_grad(_rows(gy), _rows(y), _rows(x), hi, lo, invstd, gamma, keep=self.needs[3])
        return *_for_inputs(self, gradients), None if g is None else g.reshape(x.shape)


@dataclass(eq=False)
class BatchNormEval(Function):
    """Batch normalisation in evaluation: an affine map, whose mean and variance are constants; then + z and ReLU.

    Shapes    x (..., C); gamma, beta, mean, variance (C,); z (..., C) or None; y (..., C)
    Forward   s = 1/sqrt(variance + eps);  xhat = (x - mean) * s;  y = gamma * xhat + beta + z
              with relu, y = max(that, 0)
    Backward  g = gy, or with relu gy where y > 0, else 0
              gx = gamma * s * g;  ggamma = sum(g * xhat);  gbeta = sum(g);  gz = g
    Saves     gamma, mean, variance; x if ggamma is needed; y with relu
    Cost      4 to 6 flops an element forward, 5 backward
    """

    eps: float
    relu: bool = False

    def forward(self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, z: Any = None) -> Any:
        y = batch_norm_eval(
            _rows(x), mean, variance, gamma, beta, self.eps, None if z is None else _rows(z), self.relu
        ).reshape(x.shape)
        self.save(x if self.needs[1] else None, gamma, mean, variance, y if self.relu else None)
        return y

    def backward(self, gy: Any) -> Any:
        x, gamma, mean, variance, y = self.saved
        g = gy if y is None else relu_grad(gy, y)
        x = None if x is None else _rows(x)
        gradients = batch_norm_eval_grad(_rows(g), x, mean, variance, gamma, self.eps)
        return *_for_inputs(self, gradients), None, None, g


@dataclass(eq=False)
class GroupNorm(Function):
    """Group normalisation (Wu and He, 2018): each group of channels of each example by its own mean and variance.

    Layer normalisation (Ba, Kiros and Hinton, 2016) is one group over one position: S = G = 1.

    Shapes    view = (N, S, G, D): N examples, S positions, G groups of D channels. x and y of any shape with as many
              elements, seen as `view`; gamma, beta as (G, D); M = S*D values are normalised together
    Forward   mean = sum(x)/M;  variance = sum((x - mean)^2)/M, over S and D;  s = 1/sqrt(variance + eps)
              xhat = (x - mean) * s;  y = gamma * xhat + beta. The mean is kept as hi + lo, as in BatchNorm
    Backward  gbeta = sum(gy);  ggamma = sum(gy * xhat), over N and S;  h = gamma * gy
              gx = s * (h - sum(h)/M - xhat * sum(h * xhat)/M), over S and D. In BatchNorm gamma stands before the
              bracket; here it differs within what is normalised together, and must stay inside
    Saves     x, gamma and (N, G)-sized statistics. xhat is made anew
    Cost      about 8 flops an element forward, 12 backward: it is bound by memory
    """

    view: tuple[int, int, int, int]
    eps: float

    def forward(self, x: Any, gamma: Any, beta: Any) -> Any:
        weights = self.view[2:]
        y, hi, lo, invstd = group_norm_kernel(
            x.reshape(self.view), gamma.reshape(weights), beta.reshape(weights), self.eps
        )
        self.save(x, gamma, hi, lo, invstd)
        return y.reshape(x.shape).astype(x.dtype, copy=False)

    def backward(self, gy: Any) -> Any:
        x, gamma, hi, lo, invstd = self.saved
        gy, x, gamma = gy.reshape(self.view), x.reshape(self.view), gamma.reshape(self.view[2:])
        return _for_inputs(self, group_norm_grad(gy, x, hi, lo, invstd, gamma))


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
    `momentum`; else those two are used. With a float16 input, weights and statistics may be float32.
    Raises ShapeError, also for one value a channel in training; DTypeError.
    """
    input = as_tensor(input)
    if input.ndim == 0:
        raise ShapeError("batch_norm: input must be (..., C), but is a number")
    channels = input.shape[-1]
    gamma, beta = _affine(input, (channels,), weight, bias)
    if isinstance(running_mean, (list, tuple)) or isinstance(running_var, (list, tuple)):
        raise DTypeError(
            "batch_norm: running_mean and running_var are written in place: pass Tensors or arrays, not lists"
        )
    running_mean = None if running_mean is None else as_tensor(running_mean)
    running_var = None if running_var is None else as_tensor(running_var)
    _check("batch_norm", input, weight=gamma, bias=beta, running_mean=running_mean, running_var=running_var)
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
        return BatchNormEval(eps, relu)(input, gamma, beta, running_mean, running_var, z)
    if relu:
        y, mean, variance = BatchNormAddReLU(eps)(_enough(input, channels), gamma, beta, z)
    else:
        y, mean, variance = BatchNorm(eps)(_enough(input, channels), gamma, beta)
        y = y if z is None else add_op(y, z)
    rows = input.numel() // channels
    if running_mean is not None and rows:
        _move(running_mean, mean, momentum)
    if running_var is not None and rows:  # the batch is normalised with the biased variance, the unbiased is kept
        _move(running_var, variance, momentum, rows / (rows - 1))
    return y


def fold_batch_norm(
    weight: Any, bias: Any, running_mean: Any, running_var: Any, gamma: Any, beta: Any, eps: float
) -> tuple[Any, Any] | None:
    """Weight (KH, KW, C/G, O) and bias (O,) of the convolution that is conv2d, then batch_norm in evaluation.

    With a = gamma / sqrt(running_var + eps): weight * a and (bias - running_mean) * a + beta. They are made in float64,
    rounded once, and kept for the next call until one of the arguments is written. None where the two must stay apart:
    where a gradient may be wanted, under detect_anomaly, and in float16, which would lose digits of the weights.
    """
    if is_grad_enabled() or is_anomaly_enabled() or gamma is None or beta is None:
        forget(running_var.data)
        return None

    def fold() -> tuple[Any, Any] | None:
        tensors = [t for t in (weight, running_mean, running_var, gamma, beta, bias) if t is not None]
        if weight.dtype == np.float16 or any(t.dtype != weight.dtype for t in tensors):
            return None
        w, mean, variance, scale, shift, *b = (t.data.astype(np.float64) for t in tensors)
        a = scale * (variance + eps) ** -0.5
        # copied to memory in large pages: with one image, weights are read once for each, and looking up pages shows
        return wrap(copy((w * a).astype(weight.dtype))), wrap((sum(b, -mean) * a + shift).astype(weight.dtype))

    w, m, v, g, s = weight.version, running_mean.version, running_var.version, gamma.version, beta.version
    b = None if bias is None else (bias.version, bias.version.count)
    version = eps, w, w.count, m, m.count, v, v.count, g, g.count, s, s.count, b
    return kept_at(version, running_var.data, "folded", fold)


def _move(running: Any, batch: Any, momentum: float, factor: float = 1.0) -> None:
    """running = (1 - momentum) * running + momentum * factor * batch, in place, and counted."""
    with quiet():
        running_average_(running.data, batch.data, momentum, factor)
    running.version.count += 1
    forget(running.data)  # what evaluation folded; in training it is memory for nothing


def _enough(input: Any, channels: int) -> Any:
    if input.numel() == channels:
        raise ShapeError(
            f"batch_norm: Expected more than 1 value per channel when training, got input size {input.shape}; "
            "use a larger batch, drop_last=True in the loader, or eval()"
        )
    return input


def layer_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Normalise input (..., *normalized_shape) over its last axes, each example alone, then scale and shift.

    weight and bias have shape normalized_shape, and may be float32 with a float16 input. Raises ShapeError, DTypeError.
    """
    input = as_tensor(input)
    shape = integers("layer_norm", (normalized_shape,))
    leading = input.shape[: input.ndim - len(shape)]
    if not shape or input.shape != leading + shape:
        raise ShapeError(f"layer_norm: input must end in normalized_shape {shape}, but has shape {input.shape}")
    gamma, beta = _affine(input, shape, weight, bias)
    for name, v in (("weight", gamma), ("bias", beta)):
        if v.shape != shape:
            raise ShapeError(f"layer_norm: {name} must have normalized_shape {shape}, but has shape {v.shape}")
    check_parameters("layer_norm", input, weight=gamma, bias=beta)
    return GroupNorm((math.prod(leading), 1, 1, math.prod(shape)), eps)(input, gamma, beta)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalise each of num_groups groups of adjacent channels of input (N, ..., C), each example alone.

    Then scale and shift by weight and bias (C,), which may be float32 with a float16 input. PyTorch's input is
    (N, C, ...). Raises ShapeError; ArgumentError where the groups do not divide the channels; DTypeError.
    """
    input = as_tensor(input)
    if input.ndim < 2:
        raise ShapeError(f"group_norm: input must be (N, ..., C), but has shape {input.shape}")
    batch, *positions, channels = input.shape
    gamma, beta = _affine(input, (channels,), weight, bias)
    _check("group_norm", input, weight=gamma, bias=beta)
    if not isinstance(num_groups, (int, np.integer)) or num_groups < 1 or channels % num_groups:
        raise ArgumentError(f"group_norm: num_groups {num_groups} must divide the {channels} channels of the input")
    return GroupNorm((batch, math.prod(positions), num_groups, channels // num_groups), eps)(input, gamma, beta)


def _affine(input: Any, shape: tuple[int, ...], weight: Any, bias: Any) -> tuple[Any, Any]:
    """weight and bias as Tensors: 1 and 0 where there are none."""
    xp = array_module(input.data)
    gamma = xp.ones(shape, dtype=input.dtype) if weight is None else weight
    beta = xp.zeros(shape, dtype=input.dtype) if bias is None else bias
    return as_tensor(gamma), as_tensor(beta)


def _check(op: str, input: Any, **vectors: Any) -> None:
    channels = input.shape[-1]
    for name, v in vectors.items():
        if v is None or v.shape == (channels,):
            continue
        message = f"{op}: input {input.shape} has {channels} channels in its last axis, but {name} has shape {v.shape}"
        if input.ndim == 4 and v.shape == input.shape[1:2]:
            message += "; it looks like (N, C, H, W): minires is channels-last, pass x.permute(0, 2, 3, 1)"
        raise ShapeError(message)
    check_parameters(op, input, **vectors)
