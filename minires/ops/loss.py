"""Softmax and the losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, wrap
from ..device import array_module, check_one_device
from ..errors import ArgumentError, DTypeError, GraphError, RangeError, ShapeError
from ..kernels import (
    bce_with_logits,
    bce_with_logits_grad,
    bce_with_logits_grad_target,
    cross_entropy_grad,
    log_softmax_grad,
    soft_cross_entropy,
    soft_cross_entropy_grad,
    softmax_grad,
    squared_error,
    squared_error_grad,
)
from ..kernels import cross_entropy as cross_entropy_kernel
from ..kernels import log_softmax as log_softmax_kernel
from ..kernels import softmax as softmax_kernel
from .checks import as_tensor, check_float, check_parameters, dimension, number_within
from .dtypes import cast
from .elementwise import abs, add, div, mul, sub
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
        return softmax_grad(gy, y, self.axis)


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
        return log_softmax_grad(gy, y, self.axis)


@dataclass(eq=False)
class NLLLoss(Function):
    """The negative of each row's entry at its target, scaled.

    Shapes    x (N, C); target (N,) integers; scale (N,), or None for 1; y (N,)
    Forward   y = -x[n, target[n]] * scale[n], 0 where scale is 0
    Backward  gx = -gy * scale at the target, 0 elsewhere
    Saves     target, scale
    """

    def forward(self, x: Any, target: Any, scale: Any) -> Any:
        self.save(target, scale)
        self.shape = x.shape
        xp = array_module(x)
        y = -x[xp.arange(len(x)), target]
        return y if scale is None else xp.where(scale == 0, 0, y * scale)

    def backward(self, gy: Any) -> Any:
        target, scale = self.saved
        xp = array_module(gy)
        g = gy if scale is None else xp.where(scale == 0, 0, gy * scale)
        return xp.where(xp.arange(self.shape[1]) == target[:, None], -g[:, None], 0), None, None


@dataclass(eq=False)
class CrossEntropy(Function):
    """Softmax and negative log-likelihood in one.

    Shapes    z (N, C); target (N,) integers; scale (N,), or None for 1; y (N,)
    Forward   y = scale * ((max - z[target]) + log1p(sum of exp(z - max) over all but the maximum)), 0 where scale is 0
    Backward  gz = gy * scale * (p - onehot(target)), p = softmax(z). The target's entry, p - 1, is minus the sum of the
              others' p, computed so: p - 1 is 0 once p rounds to 1
    Saves     z, target, scale. p is made anew in backward: N*C is small beside the activations
    """

    def forward(self, z: Any, target: Any, scale: Any) -> Any:
        self.save(z, target, scale)
        return cross_entropy_kernel(z, target, scale)

    def backward(self, gy: Any) -> Any:
        return cross_entropy_grad(gy, *self.saved), None, None


@dataclass(eq=False)
class SoftCrossEntropy(Function):
    """Cross-entropy between softmax(z) and other probabilities q, which need not sum to 1: smoothed or weighted labels.

    Shapes    z, q (N, C), q >= 0; y (N,)
    Forward   y = -sum(q * log_softmax(z)) = sum(q * (max - z)) + sum(q) * log1p(...) as in CrossEntropy: no term is
              negative, so no digits cancel. Where q is 0 the term is 0, also for z = -inf
    Backward  gz = gy * (p * sum(q) - q), p = softmax(z), computed as there where q has its largest part
              gq = -gy * log_softmax(z)
    Saves     z, q. p is made anew in backward
    """

    def forward(self, z: Any, q: Any) -> Any:
        self.save(z, q)
        return soft_cross_entropy(z, q)

    def backward(self, gy: Any) -> Any:
        z, q = self.saved
        gz = soft_cross_entropy_grad(gy, z, q) if self.needs[0] else None
        gq = -gy[:, None] * log_softmax_kernel(z, 1) if self.needs[1] else None
        return gz, gq


@dataclass(eq=False)
class SquaredError(Function):
    """y = (x - target)^2, element by element. gx = 2 * gy * (x - target); gtarget = -gx. Saves x and target."""

    def forward(self, x: Any, target: Any) -> Any:
        self.save(x, target)
        return squared_error(x, target)

    def backward(self, gy: Any) -> Any:
        gx = squared_error_grad(gy, *self.saved)
        return gx, -gx if self.needs[1] else None


@dataclass(eq=False)
class BCEWithLogits(Function):
    """Sigmoid and binary cross-entropy in one, element by element.

    Shapes    x, target, y alike; pos_weight, or None for 1, broadcasts to them
    Forward   y = pos_weight * target * softplus(-x) + (1 - target) * softplus(x): no term is negative.
              softplus(v) = log(1 + exp(v)) = max(v, 0) + log1p(exp(-abs(v))), whose exp cannot overflow
    Backward  softplus' = sigmoid = p, and 1 - p = sigmoid(-x) is made by itself, not by a difference:
              gx = gy * ((1 - target) * p - pos_weight * target * (1 - p))
              gtarget = gy * (pos_weight * softplus(-x) - softplus(x)), which is -gy * x where pos_weight is 1
    Saves     x, target, pos_weight
    """

    def forward(self, x: Any, target: Any, pos_weight: Any) -> Any:
        self.save(x, target, pos_weight)
        return bce_with_logits(x, target, pos_weight)

    def backward(self, gy: Any) -> Any:
        x, _, pos_weight = self.saved
        gtarget = bce_with_logits_grad_target(gy, x, pos_weight) if self.needs[1] else None
        return bce_with_logits_grad(gy, *self.saved), gtarget, None


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


def nll_loss(input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """Minus the entry of log-probabilities input (N, ..., C) at class numbers target (N, ...), averaged.

    The settings, shapes and errors are those of cross_entropy.
    """
    input, target, weight = _checked("nll_loss", input, target, weight)
    labels, kept = _labels("nll_loss", input, target, ignore_index)
    rows = _rows(input)
    scale = _scale(rows, labels, kept, weight)
    losses = NLLLoss()(rows, labels, scale)
    return _reduce("nll_loss", losses, reduction, input.dtype, target.shape, scale)


def cross_entropy(
    input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """Softmax cross-entropy of logits input (N, ..., C), or (C,), averaged. PyTorch's input is (N, C, ...).

    target (N, ...) holds class numbers, or (N, ..., C) floats probabilities. weight (C,) scales each class's term;
    targets equal to ignore_index do not count; label_smoothing mixes that part of the uniform distribution into the
    target. The mean divides by the summed weights of the targets that count, or, for probabilities, by their number;
    the mean of nothing is NaN. Raises RangeError for a target outside [0, C), ShapeError, DTypeError, ArgumentError.
    """
    op = "cross_entropy"
    input, target, weight = _checked(op, input, target, weight)
    smoothing = number_within(op, "label_smoothing", label_smoothing, 0, 1)
    rows = _rows(input)
    if target.dtype.kind == "f" and target.shape == input.shape:
        q = _probabilities(op, input, target, weight, ignore_index, smoothing)
        return _reduce(op, SoftCrossEntropy()(rows, q), reduction, input.dtype, input.shape[:-1])
    labels, kept = _labels(op, input, target, ignore_index)
    scale = _scale(rows, labels, kept, weight)
    if smoothing:
        losses = SoftCrossEntropy()(rows, _smoothed(rows, labels, kept, weight, smoothing))
    else:
        losses = CrossEntropy()(rows, labels, scale)
    return _reduce(op, losses, reduction, input.dtype, target.shape, scale)


def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """(input - target)^2, averaged. Raises ShapeError unless the shapes are equal: PyTorch broadcasts, and warns."""
    input, target = _alike("mse_loss", input, target)
    return _reduce("mse_loss", SquaredError()(_wide(input), _wide(target)), reduction, input.dtype)


def l1_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """The absolute value of input - target, averaged; gradient 0 where they are equal. Raises as mse_loss."""
    input, target = _alike("l1_loss", input, target)
    return _reduce("l1_loss", abs(sub(_wide(input), _wide(target))), reduction, input.dtype)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """Binary cross-entropy of logits with probabilities target of the same shape, averaged over all elements.

    weight scales each element's loss, pos_weight the part of target 1; both broadcast to input. The mean divides by
    the number of elements, whatever the weights. Raises ShapeError, DTypeError.
    """
    op = "binary_cross_entropy_with_logits"
    input, target = _alike(op, input, target)
    weight, pos_weight = (None if w is None else as_tensor(w) for w in (weight, pos_weight))
    check_parameters(op, input, weight=weight, pos_weight=pos_weight)
    for name, w in (("weight", weight), ("pos_weight", pos_weight)):
        if w is not None and not _fits(w.shape, input.shape):
            raise ShapeError(f"{op}: {name} of shape {w.shape} does not broadcast to input {input.shape}")
    losses = BCEWithLogits()(_wide(input), _wide(target), None if pos_weight is None else _wide(pos_weight))
    return _reduce(op, losses if weight is None else mul(losses, _wide(weight)), reduction, input.dtype)


def _reduce(op: str, losses: Any, reduction: str, dtype: Any, shape: Any = None, scale: Any = None) -> Any:
    """In `dtype`: the mean, over the sum of `scale` if there is one; the sum; or the losses, as `shape`."""
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f"{op}: reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    if reduction == "mean":
        result = mean(losses) if scale is None else div(sum(losses), sum(wrap(scale)))
    elif reduction == "sum":
        result = sum(losses)
    else:
        result = losses if shape in (None, losses.shape) else reshape(losses, shape)
    return cast(result, dtype)


def _wide(tensor: Any) -> Any:
    """float16 as float32: a loss is rounded at its end, and its rows' gradients, 1/N each, not before scores'."""
    return cast(tensor, np.float32) if tensor.dtype == np.float16 else tensor


def _rows(input: Any) -> Any:
    """(..., C) as (N, C), wide."""
    return _wide(input if input.ndim == 2 else reshape(input, (math.prod(input.shape[:-1]), input.shape[-1])))


def _alike(op: str, input: Any, target: Any) -> tuple[Any, Any]:
    input, target = as_tensor(input), as_tensor(target)
    if input.shape != target.shape:
        raise ShapeError(
            f"{op}: input has shape {input.shape}, but target {target.shape}; reshape one to the other's shape"
        )
    check_float(op, input=input, target=target)
    return input, target


def _fits(shape: tuple[int, ...], into: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, into) == into
    except ValueError:
        return False


def _checked(op: str, input: Any, target: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Tensors of which input is floating and has classes, and weight, if given, one number for each."""
    input, target = as_tensor(input), as_tensor(target)
    weight = None if weight is None else as_tensor(weight)
    check_one_device(op, [t.data for t in (input, target, weight) if t is not None])
    if input.ndim == 0 or input.shape[-1] == 0:
        given = f"has shape {input.shape}" if input.ndim else "is a number"
        raise ShapeError(f"{op}: input must be (N, ..., C) or (C,), class scores in its last axis, but {given}")
    check_parameters(op, input, weight=weight)
    if weight is not None and weight.requires_grad:
        raise GraphError(f"{op}: the classes' weight gets no gradient; pass weight.detach()")
    if weight is not None and weight.shape != input.shape[-1:]:
        raise ShapeError(
            f"{op}: weight must hold one number for each of the {input.shape[-1]} classes, but has shape {weight.shape}"
        )
    return input, target, weight


def _labels(op: str, input: Any, target: Any, ignore_index: int) -> tuple[Any, Any]:
    """Class numbers (N,) within [0, C), and which of them count; None if all do.

    On a GPU nobody looks at labels. There the second is 1 or 0, or NaN for a label that is no class: NaN is its loss.
    """
    if target.dtype.kind not in "iu":
        other = f", or probabilities of the input's shape {input.shape}" if op == "cross_entropy" else ""
        given = f"{target.dtype} {target.shape}"
        raise DTypeError(f"{op}: target must hold class numbers of an integer type{other}, not {given}")
    if target.shape != input.shape[:-1]:
        first = input.ndim > 2 and target.shape == (*input.shape[:1], *input.shape[2:])
        remedy = "; it looks like (N, C, ...): minires is channels-last, move the classes to the end" if first else ""
        raise ShapeError(
            f"{op}: target has shape {target.shape}, but input {input.shape} needs one class number a row, "
            f"shape {input.shape[:-1]}{remedy}"
        )
    if not isinstance(ignore_index, (int, np.integer)):
        raise ArgumentError(f"{op}: ignore_index must be an int, not {ignore_index!r}; -100 ignores no class")
    xp, classes = array_module(target.data), input.shape[-1]
    labels = target.data.reshape(-1).astype(xp.int64)  # a copy: later writes into target do not reach backward
    if not _may_be_ignored(op, labels, classes, ignore_index):
        return labels, None
    known, kept = (labels >= 0) & (labels < classes), labels != ignore_index
    if xp is not np:
        kept = xp.where(kept, xp.where(known, 1, xp.nan), 0)
    return xp.where(known, labels, 0), kept


def _may_be_ignored(op: str, labels: Any, classes: int, ignore_index: int) -> bool:
    """Whether some label may be ignore_index. Raises RangeError for another one outside [0, classes)."""
    if array_module(labels) is not np:
        return True  # on a GPU a look would wait for the device; labels are checked when loaded
    inside = not labels.size or (labels.min() >= 0 and labels.max() < classes)
    if not inside:
        wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore_index)]
        if wrong.size:
            raise RangeError(f"{op}: target holds class {wrong[0]}, but input has {classes} classes, counted from 0")
    return not inside or 0 <= ignore_index < classes


def _scale(rows: Any, labels: Any, kept: Any, weight: Any) -> Any:
    """Each label's weight (N,), 0 where it does not count; None if all are 1."""
    xp = array_module(labels)
    if weight is None:
        return None if kept is None else kept.astype(rows.dtype)
    scale = _wide(weight).data[labels]
    return scale if kept is None else xp.where(kept == 0, 0, scale * kept.astype(scale.dtype))


def _smoothed(rows: Any, labels: Any, kept: Any, weight: Any, smoothing: float) -> Any:
    """Each row's (1 - smoothing) * onehot(label) + smoothing / C, times `weight`; zeros where it does not count."""
    xp, classes = array_module(labels), rows.shape[-1]
    rest = smoothing / classes
    q = xp.where(xp.arange(classes) == labels[:, None], 1 - smoothing + rest, rest).astype(rows.dtype)
    q = q if weight is None else q * _wide(weight).data
    return q if kept is None else xp.where(kept[:, None] == 0, 0, q * kept[:, None].astype(q.dtype))


def _probabilities(op: str, input: Any, target: Any, weight: Any, ignore_index: int, smoothing: float) -> Any:
    """The same (N, C) for a target that holds probabilities, with its graph."""
    check_parameters(op, input, target=target)
    if ignore_index >= 0:
        raise ArgumentError(f"{op}: ignore_index {ignore_index} names a class, but target holds probabilities")
    q = _wide(target)
    q = add(mul(q, 1 - smoothing), smoothing / input.shape[-1]) if smoothing else q
    return _rows(q if weight is None else mul(q, _wide(weight)))
