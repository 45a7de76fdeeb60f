"""Normalisation: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from minires import ops
from minires.ops.norm import BatchNorm, BatchNormAddReLU, BatchNormEval, GroupNorm
from tests import reference
from tests.ops.case import Arrays, Case, beside, normal
from tests.ops.mutant import Mutant, on_saved, replaced, zero

MEAN, VARIANCE = np.linspace(-1, 1, 5), np.linspace(0.5, 2, 5)


def normalised(name: str, shape: tuple[int, ...], training: bool = True, add: bool = False, relu: bool = False,
               eps: float = 1e-5) -> Case:  # fmt: skip
    """Batch norm, with its residual addition and ReLU; drawn anew until no sum is near ReLU's kink."""
    c = shape[-1]
    statistics = (None, None) if training else (MEAN[:c], VARIANCE[:c])

    def op(x: Any, gamma: Any, beta: Any, z: Any = None) -> Any:
        running = (None if s is None else beside(s, x) for s in statistics)
        return ops.batch_norm(x, *running, gamma, beta, training, eps=eps, add=z, relu=relu)

    def before(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, z: Any = None) -> np.ndarray:
        y = reference.batch_norm(x, gamma, beta, *statistics, eps)
        return y if z is None else reference.elementwise(operator.add, y, z)

    def naive(*arrays: Any) -> np.ndarray:
        return reference.elementwise(lambda v: max(v, 0.0) if relu else v, before(*arrays))

    def torch(t: Any, x: Any, gamma: Any, beta: Any, z: Any = None) -> Any:
        running = (None if s is None else t.from_numpy(s) for s in statistics)
        y = t.nn.functional.batch_norm(x, *running, gamma, beta, training, eps=eps)
        y = y if z is None else y + z
        return t.relu(y) if relu else y

    def make(rng: np.random.Generator) -> Arrays:
        while True:
            arrays = [rng.standard_normal(s) for s in (shape, (c,), (c,), *([shape] if add else []))]
            if not relu or np.min(np.abs(before(*arrays))) > 0.01:
                return arrays

    axes = (0, len(shape) - 1, *range(1, len(shape) - 1))
    return Case(
        f"norm-{name}", op, naive, torch, make, "norm", "norm norm_sum norm_sum norm",
        axes=(axes, None, None, axes), out=axes, batched=(0, 3) if add else (0,),
    )  # fmt: skip


def by_layer(name: str, shape: tuple[int, ...], over: tuple[int, ...], weight: bool = True, bias: bool = True,
             eps: float = 1e-5, batched: tuple[int, ...] = (0,)) -> Case:  # fmt: skip
    shapes = (shape, *([over] * (weight + bias)))
    return Case(
        f"norm-layer-{name}", lambda x, *wb: ops.layer_norm(x, over, *wb, eps=eps),
        lambda x, *wb: reference.layer_norm(x, over, *wb, eps=eps),
        lambda t, x, *wb: t.nn.functional.layer_norm(x, over, *wb, eps=eps), normal(*shapes),
        "norm", "norm norm_sum norm_sum", batched=batched,
    )  # fmt: skip


def by_group(name: str, shape: tuple[int, ...], groups: int, affine: bool = True, eps: float = 1e-5) -> Case:
    axes = (0, len(shape) - 1, *range(1, len(shape) - 1))
    return Case(
        f"norm-group-{name}", lambda x, *wb: ops.group_norm(x, groups, *wb, eps=eps),
        lambda x, *wb: reference.group_norm(x, groups, *wb, eps=eps),
        lambda t, x, *wb: t.nn.functional.group_norm(x, groups, *wb, eps=eps),
        normal(shape, *([shape[-1:]] * 2 if affine else [])), "norm", "norm norm_sum norm_sum", axes=(axes,), out=axes,
    )  # fmt: skip


CASES = [
    normalised("train", (2, 3, 4, 5)),
    normalised("train-one-image", (1, 3, 4, 5)),
    normalised("train-one-channel", (2, 3, 4, 1)),
    normalised("train-matrix", (7, 5)),
    normalised("train-sequence", (3, 4, 5)),
    # a large eps: with 1e-5, the values of two points are steps to finite differences
    normalised("train-two-values", (2, 1, 1, 3), eps=0.1),
    normalised("train-relu", (2, 3, 2, 3), relu=True),
    normalised("train-add", (2, 3, 2, 3), add=True),
    normalised("train-add-relu", (2, 3, 2, 3), add=True, relu=True),
    normalised("eval", (2, 3, 4, 5), training=False),
    normalised("eval-one-value", (1, 1, 1, 5), training=False),
    normalised("eval-add-relu", (2, 3, 2, 3), training=False, add=True, relu=True),
    by_layer("matrix", (4, 6), (6,)),
    by_layer("one-row", (1, 7), (7,)),
    by_layer("vector", (8,), (8,), batched=()),
    by_layer("sequence", (2, 3, 5), (5,)),
    by_layer("two-axes", (3, 2, 4), (2, 4)),
    by_layer("image", (2, 3, 4, 5), (3, 4, 5), eps=0.1),
    by_layer("two-values", (3, 2), (2,), eps=0.1),
    by_layer("weight-only", (4, 6), (6,), bias=False),
    by_layer("plain", (4, 6), (6,), weight=False, bias=False),
    by_group("image", (2, 3, 2, 6), 3),
    by_group("one-image", (1, 3, 2, 6), 2),
    by_group("one-group", (2, 3, 2, 4), 1),
    by_group("instance", (2, 3, 4, 3), 3),
    by_group("matrix", (4, 6), 2),
    by_group("sequence", (2, 5, 4), 2, eps=0.1),
    by_group("volume", (2, 2, 2, 2, 4), 2),
    by_group("plain", (2, 3, 2, 6), 3, affine=False),
]


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


def group_norm_grad(mean: bool = True, variance: bool = True, bias: int = 0, gamma: bool = True, outside: bool = False,
                    axes: tuple[int, ...] = (1, 3)) -> Any:  # fmt: skip
    """Group norm's gx without a term, with means over M - bias or along wrong axes, or gamma as in batch norm."""

    def gx(self: Any, gy: Any, right: Any) -> Any:
        x, weight, hi, lo, s = self.saved
        x, gy, weight = x.reshape(self.view), gy.reshape(self.view), weight.reshape(self.view[2:])
        terms = math.prod(x.shape[axis] for axis in axes) - bias
        xhat = (x - hi - lo) * s
        h = gy if outside or not gamma else gy * weight
        averages = [v.sum(axes, keepdims=True) / terms for v in (h, h * xhat)]
        g = h - mean * averages[0] - variance * xhat * averages[1]
        return (g * s * (weight if outside else 1)).reshape(right.shape)

    return replaced(0, gx)


MUTANTS = [
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
    Mutant("no-gamma", BatchNormEval, "norm-eval", replaced(0, lambda self, gy, g: g / self.saved[1])),
    Mutant("uncentred", BatchNormEval, "norm-eval", on_saved(lambda x, gamma, mean, *v: (x, gamma, 0 * mean, *v))),
    Mutant("squared-eps", BatchNormEval, "norm-eval", on_saved(lambda *a: (*a[:3], a[3] + 1e-5, a[4]))),
    Mutant("no-relu-mask", BatchNormEval, "norm-eval-add-relu", on_saved(lambda *a: (*a[:4], None))),
    Mutant("lost-residual-branch", BatchNormEval, "norm-eval-add-relu", replaced(5, lambda self, gy, g: 0 * g)),
    Mutant("unmasked-residual", BatchNormEval, "norm-eval-add-relu", replaced(5, lambda self, gy, g: gy)),
    *(Mutant(mistake, GroupNorm, case, group_norm_grad(**settings)) for case, mistake, settings in (
        ("norm-group-image", "no-mean-term", {"mean": False}),
        ("norm-group-image", "no-variance-term", {"variance": False}),
        ("norm-group-image", "gamma-outside", {"outside": True}),
        ("norm-group-image", "unbiased", {"bias": 1}),
        ("norm-group-image", "channels-alone", {"axes": (1,)}),
        ("norm-group-image", "positions-alone", {"axes": (3,)}),
        ("norm-group-image", "whole-batch", {"axes": (0, 1, 3)}),
        ("norm-layer-two-axes", "all-rows", {"axes": (0, 1, 3)}),
        ("norm-layer-two-axes", "no-gamma", {"gamma": False}),
    )),
    Mutant("unscaled-gamma", GroupNorm, "norm-layer-matrix", replaced(1, lambda self, gy, g: g / self.saved[4].mean())),
    Mutant("no-beta", GroupNorm, "norm-layer-matrix", zero),
    Mutant("beta-mean", GroupNorm, "norm-layer-matrix", replaced(2, lambda self, gy, g: g / len(gy))),
]  # fmt: skip

SIMPLEST = {
    BatchNorm: "norm-train",
    BatchNormAddReLU: "norm-train-add-relu",
    BatchNormEval: "norm-eval",
    GroupNorm: "norm-group-image",
}
