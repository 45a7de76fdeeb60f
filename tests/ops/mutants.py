"""Wrong backwards, as people write them. Each is a function from the right `backward` to the wrong one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.kernels import ConvGeometry, avg_pool2d_grad, conv2d_grad_input
from minires.ops.conv import Conv2d
from minires.ops.elementwise import Add, Div, Exp, Log, Maximum, Mul, Neg, Pow, ReLU, Sqrt, Sub
from minires.ops.linear import Linear, MatMul
from minires.ops.loss import CrossEntropy, LogSoftmax, NLLLoss, Softmax
from minires.ops.norm import BatchNorm, BatchNormAddReLU, BatchNormEval
from minires.ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minires.ops.reduce import AMax, MaxDim, Mean, Sum
from minires.ops.shape import Index, Permute, Reshape
from tests.helpers import Backward


@dataclass(frozen=True)
class Mutant:
    """A wrong backward of a Function, and the case that must show it."""

    mistake: str
    function: type
    case: str
    wrong: Callable[[Backward], Backward]

    def __str__(self) -> str:
        return f"{self.case.partition('-')[0]}-{self.function.__name__}-{self.mistake}"


def changed(change: Callable[..., Any]) -> Callable[[Backward], Backward]:
    """The right gradients, handed to `change` with the Function and its output's gradient."""

    def wrong(right: Backward) -> Backward:
        return lambda self, *gy: change(self, gy[0], right(self, *gy))

    return wrong


def instead(backward: Callable[..., Any]) -> Callable[[Backward], Backward]:
    """Another backward altogether."""
    return lambda right: lambda self, *gy: backward(self, gy[0])


def scaled(factor: float) -> Callable[[Backward], Backward]:
    def times(g: Any) -> Any:
        return None if g is None else g * factor

    return changed(lambda self, gy, g: tuple(map(times, g)) if isinstance(g, tuple) else times(g))


def replaced(index: int, change: Callable[..., Any]) -> Callable[[Backward], Backward]:
    """The right gradients but for one, which `change(self, gy, it)` makes wrong."""
    return changed(lambda self, gy, g: tuple(change(self, gy, v) if i == index else v for i, v in enumerate(g)))


def on_saved(change: Callable[..., tuple[Any, ...]]) -> Callable[[Backward], Backward]:
    """The right formula from wrong arrays: `change(*saved)`."""

    def wrong(right: Backward) -> Backward:
        def backward(self: Any, *gy: Any) -> Any:
            self.saved = change(*self.saved)
            return right(self, *gy)

        return backward

    return wrong


def without_stride(self: Any, gy: Any, gx: Any) -> Any:
    """The windows' gradients laid side by side, as if the stride were 1."""
    w = self.saved[1]
    dense = (len(gy), gy.shape[1] + w.shape[0] - 1, gy.shape[2] + w.shape[1] - 1, w.shape[2])
    out = np.zeros_like(gx)
    out[:, : dense[1], : dense[2]] = conv2d_grad_input(gy, w, dense, ConvGeometry())[:, : gx.shape[1], : gx.shape[2]]
    return out


def assigned(self: Any, gy: Any, gx: Any) -> Any:
    """col2im that assigns where windows overlap."""
    w, (top, _, left, _) = self.saved[1], self.geometry.padding
    out = np.zeros((len(gx), gx.shape[1] + 2 * top, gx.shape[2] + 2 * left, gx.shape[3]))
    for i, j in np.ndindex(w.shape[:2]):
        out[:, i : i + gy.shape[1], j : j + gy.shape[2]] = gy @ w[i, j].T
    return out[:, top : top + gx.shape[1], left : left + gx.shape[2]]


def batch_norm_grad(mean: bool = True, variance: bool = True, bias: int = 0, gamma: bool = True) -> Any:
    """Batch norm's gx without one of its terms, or with means over M - bias."""

    def gx(self: Any, gy: Any, right: Any) -> Any:
        x, weight, hi, lo, s, *y = self.saved
        gy = gy * (y[0] > 0) if y else gy
        axes = tuple(range(x.ndim - 1))
        rows = x.size // x.shape[-1] - bias
        xhat = (x - hi - lo) * s
        g = gy - mean * gy.sum(axes) / rows - variance * xhat * (gy * xhat).sum(axes) / rows
        return g * s * (weight if gamma else 1)

    return replaced(0, gx)


def to_all_ties(self: Any, gy: Any) -> Any:
    """The mean's gradient for a maximum."""
    return avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, np.float64(1))


def last_window(self: Any, gy: Any, gx: Any) -> Any:
    """A pixel that won several windows gets one gradient, not their sum."""
    return np.clip(gx, gy.min(), gy.max())


def first_only(x: Any) -> Any:
    """x with zeros but for its first entry along the first axis."""
    return np.concatenate([x[:1], 0 * x[1:]])


def not_inverted(self: Any, gy: Any) -> Any:
    """The order of the forward pass once more, under the shape that the engine asks for."""
    return gy.transpose(self.order).reshape(self.inputs[0].shape)


def without_onehot(self: Any, gy: Any, gz: Any) -> Any:
    target = self.saved[1]
    return gz + gy[:, None] * (np.arange(gz.shape[1]) == target[:, None])


zero = replaced(2, lambda self, gy, g: np.zeros_like(g))

MUTANTS = [
    Mutant("lost-broadcast-sum", Add, "elementwise-add-row", instead(lambda self, gy: (gy, gy[0]))),
    Mutant("lost-residual-branch", Add, "elementwise-add-alike", instead(lambda self, gy: (gy, 0 * gy))),
    Mutant("sign", Sub, "elementwise-sub-alike", instead(lambda self, gy: (gy, gy))),
    Mutant("exchanged", Mul, "elementwise-mul-alike", on_saved(lambda a, b: (b, a))),
    Mutant("no-square", Div, "elementwise-div-alike", replaced(1, lambda self, gy, g: g * self.saved[0])),
    Mutant("no-factor", Pow, "elementwise-pow-alike", replaced(0, lambda self, gy, g: g / self.saved[1])),
    Mutant("no-logarithm", Pow, "elementwise-pow-alike", replaced(1, lambda self, gy, g: gy * self.saved[2])),
    Mutant("to-both", Maximum, "elementwise-maximum-alike", instead(lambda self, gy: (gy, gy))),
    Mutant("exchanged", Maximum, "elementwise-maximum-alike", on_saved(lambda a, b: (b, a))),
    Mutant("sign", Neg, "elementwise-neg", instead(lambda self, gy: gy)),
    Mutant("power-rule", Exp, "elementwise-exp", on_saved(lambda y: (y / np.e,))),
    Mutant("not-inverted", Log, "elementwise-log", on_saved(lambda x: (1 / x,))),
    Mutant("no-half", Sqrt, "elementwise-sqrt", on_saved(lambda y: (y / 2,))),
    Mutant("no-mask", ReLU, "elementwise-relu", instead(lambda self, gy: gy)),
    Mutant("mask-of-gradient", ReLU, "elementwise-relu", changed(lambda self, gy, g: g * (gy > 0))),
    Mutant("mean-for-sum", Sum, "reduce-sum-1-False", changed(lambda self, gy, g: g / 3)),
    Mutant("first-only", Sum, "reduce-sum-0-False", changed(lambda self, gy, g: first_only(g))),
    Mutant("not-divided", Mean, "reduce-mean-(0,2)-True", changed(lambda self, gy, g: g * self.terms)),
    Mutant("wrong-count", Mean, "reduce-mean-(0,2)-True", changed(lambda self, gy, g: g * self.terms / 60)),
    Mutant("to-all", AMax, "reduce-max-all", changed(lambda self, gy, g: np.ones_like(g) * gy)),
    Mutant("wrong-index", MaxDim, "reduce-max-1-False", on_saved(lambda index: ((index + 1) % 3,))),
    Mutant("first-index", MaxDim, "reduce-max--1-True", on_saved(lambda index: (0 * index,))),
    Mutant("columns-first", Reshape, "shape-reshape-all", instead(lambda self, gy: gy.reshape(self.source, order="F"))),
    Mutant("not-inverted", Permute, "shape-permute-cycle", instead(not_inverted)),
    Mutant("reversed", Permute, "shape-transpose", changed(lambda self, gy, g: g[::-1])),
    Mutant("shifted", Index, "shape-index-slice", changed(lambda self, gy, g: np.roll(g, 1, axis=0))),
    Mutant("to-all", Index, "shape-index-last", instead(lambda self, gy: np.repeat(gy[:, None], 3, axis=1))),
    Mutant("not-transposed", MatMul, "linear-matmul-square", replaced(0, lambda self, gy, g: gy @ self.saved[1])),
    Mutant("transposed", MatMul, "linear-matmul-square", replaced(1, lambda self, gy, g: g.T.copy())),
    Mutant("lost-batch-sum", MatMul, "linear-matmul-repeated", replaced(
        1, lambda self, gy, g: self.saved[0][0].T @ gy[0])),
    Mutant("no-bias", Linear, "linear-linear-bias", zero),
    Mutant("mean-bias", Linear, "linear-linear-bias", replaced(2, lambda self, gy, g: g / len(gy))),
    Mutant("lost-rows", Linear, "linear-linear-sequence", replaced(1, lambda self, gy, g: gy[0].T @ self.saved[0][0])),
    Mutant("unflipped-kernel", Conv2d, "conv-3x3", on_saved(lambda x, w: (x, w[::-1, ::-1]))),
    Mutant("transposed-kernel", Conv2d, "conv-square-channels", on_saved(lambda x, w: (x, w.swapaxes(2, 3)))),
    Mutant("kernel-axes", Conv2d, "conv-3x3", on_saved(lambda x, w: (x, w.swapaxes(0, 1)))),
    Mutant("flipped-weight", Conv2d, "conv-3x3", replaced(1, lambda self, gy, g: g[::-1, ::-1])),
    Mutant("stride-ignored", Conv2d, "conv-1x1-stride-2", replaced(0, without_stride)),
    Mutant("assigned", Conv2d, "conv-3x3", replaced(0, assigned)),
    Mutant("shifted-padding", Conv2d, "conv-3x3", replaced(0, lambda self, gy, g: np.roll(g, 1, axis=1))),
    Mutant("one-image", Conv2d, "conv-3x3", on_saved(lambda x, w: (first_only(x), w))),
    Mutant("no-bias", Conv2d, "conv-3x3-bias", zero),
    Mutant("bias-of-one-image", Conv2d, "conv-3x3-bias", replaced(2, lambda self, gy, g: gy[0].sum((0, 1)))),
    Mutant("no-mean-term", BatchNorm, "norm-train", batch_norm_grad(mean=False)),
    Mutant("no-variance-term", BatchNorm, "norm-train", batch_norm_grad(variance=False)),
    Mutant("as-evaluation", BatchNorm, "norm-train", batch_norm_grad(mean=False, variance=False)),
    Mutant("unbiased", BatchNorm, "norm-train", batch_norm_grad(bias=1)),
    Mutant("no-gamma", BatchNorm, "norm-train", batch_norm_grad(gamma=False)),
    Mutant("unscaled-gamma", BatchNorm, "norm-train", replaced(1, lambda self, gy, g: g / self.saved[4])),
    Mutant("no-beta", BatchNorm, "norm-train", zero),
    Mutant("no-relu-mask", BatchNormAddReLU, "norm-train-add-relu", on_saved(lambda *a: (*a[:5], np.abs(a[5]) + 1))),
    Mutant("lost-residual-branch", BatchNormAddReLU, "norm-train-add-relu", replaced(3, lambda self, gy, g: 0 * g)),
    Mutant("unmasked-residual", BatchNormAddReLU, "norm-train-add-relu", replaced(3, lambda self, gy, g: gy)),
    Mutant("unbiased", BatchNormAddReLU, "norm-train-add-relu", batch_norm_grad(bias=1)),
    Mutant("no-gamma", BatchNormEval, "norm-eval", replaced(0, lambda self, gy, g: gy * self.saved[3])),
    Mutant("uncentred", BatchNormEval, "norm-eval", on_saved(lambda x, gamma, mean, s: (x, gamma, 0 * mean, s))),
    Mutant("wrong-index", MaxPool2d, "pool-max-2x2", on_saved(lambda index: ((index + 1) % 4,))),
    Mutant("first-index", MaxPool2d, "pool-max-resnet", on_saved(lambda index: (0 * index + 4,))),
    Mutant("to-all", MaxPool2d, "pool-max-2x2", instead(to_all_ties)),
    Mutant("not-summed", MaxPool2d, "pool-max-overlap", changed(last_window)),
    Mutant("not-divided", AvgPool2d, "pool-avg-2x2", changed(lambda self, gy, g: 4 * g)),
    Mutant("padding-counted", AvgPool2d, "pool-avg-padding-uncounted", instead(
        lambda self, gy: avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, np.float64(9)))),
    Mutant("rows-for-columns", AvgPool2d, "pool-avg-overlap", changed(lambda self, gy, g: g[:, ::-1])),
    Mutant("not-divided", GlobalAvgPool2d, "pool-global-4x3", changed(lambda self, gy, g: 12 * g)),
    Mutant("wrong-count", GlobalAvgPool2d, "pool-global-4x3", changed(lambda self, gy, g: 12 / 16 * g)),
    Mutant("diagonal-only", Softmax, "loss-softmax--1", instead(lambda self, gy: self.saved[0] * gy)),
    Mutant("no-sum", LogSoftmax, "loss-log_softmax--1", instead(lambda self, gy: gy - np.exp(self.saved[0]))),
    Mutant("wrong-axis", LogSoftmax, "loss-log_softmax--1", instead(
        lambda self, gy: gy - np.exp(self.saved[0]) * gy.sum(1, keepdims=True))),
    Mutant("sign", NLLLoss, "loss-nll-mean", replaced(0, lambda self, gy, g: -g)),
    Mutant("wrong-class", NLLLoss, "loss-nll-sum", replaced(0, lambda self, gy, g: np.roll(g, 1, axis=1))),
    Mutant("no-onehot", CrossEntropy, "loss-cross_entropy-mean", replaced(0, without_onehot)),
    Mutant("row-lost", CrossEntropy, "loss-cross_entropy-none", replaced(
        0, lambda self, gy, g: g / gy[:, None] * gy[0])),
    Mutant("mean-twice", CrossEntropy, "loss-cross_entropy-mean", replaced(0, lambda self, gy, g: g / len(g))),
]  # fmt: skip

SIMPLEST = {  # for each Function, a case that shows any factor on its gradients
    Add: "elementwise-add-row", Sub: "elementwise-sub-row", Mul: "elementwise-mul-row",
    Div: "elementwise-div-alike", Pow: "elementwise-pow-alike",
    Maximum: "elementwise-maximum-row", Neg: "elementwise-neg", Exp: "elementwise-exp",
    Log: "elementwise-log", Sqrt: "elementwise-sqrt", ReLU: "elementwise-relu",
    Sum: "reduce-sum-1-False", Mean: "reduce-mean-1-False", AMax: "reduce-max-all",
    MaxDim: "reduce-max-1-False", Reshape: "shape-reshape", Permute: "shape-permute-cycle",
    Index: "shape-index-slice", MatMul: "linear-matmul-matrices", Linear: "linear-linear-bias",
    Conv2d: "conv-3x3-bias", BatchNorm: "norm-train", BatchNormAddReLU: "norm-train-add-relu",
    BatchNormEval: "norm-eval", MaxPool2d: "pool-max-2x2", AvgPool2d: "pool-avg-2x2",
    GlobalAvgPool2d: "pool-global-4x3", Softmax: "loss-softmax--1", LogSoftmax: "loss-log_softmax--1",
    NLLLoss: "loss-nll-mean", CrossEntropy: "loss-cross_entropy-mean",
}  # fmt: skip
MUTANTS += [
    Mutant(f"times-{factor:.9g}", function, case, scaled(factor))
    for function, case in SIMPLEST.items()
    for factor in (1.01, 1 + 1e-6)
]
