"""Normalisation: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from minires import Tensor, ops
from minires.ops.norm import BatchNorm, BatchNormAddReLU, BatchNormEval
from tests import reference
from tests.ops.case import Arrays, Case
from tests.ops.mutant import Mutant, on_saved, replaced, zero

MEAN, VARIANCE = np.linspace(-1, 1, 5), np.linspace(0.5, 2, 5)


def normalised(name: str, shape: tuple[int, ...], training: bool = True, add: bool = False, relu: bool = False,
               eps: float = 1e-5) -> Case:  # fmt: skip
    """Batch norm, with its residual addition and ReLU; drawn anew until no sum is near ReLU's kink."""
    c = shape[-1]
    statistics = (None, None) if training else (MEAN[:c], VARIANCE[:c])

    def op(x: Any, gamma: Any, beta: Any, z: Any = None) -> Any:
        running = (None if s is None else Tensor(s.astype(x.dtype)) for s in statistics)
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
    Mutant("no-gamma", BatchNormEval, "norm-eval", replaced(0, lambda self, gy, g: gy * self.saved[3])),
    Mutant("uncentred", BatchNormEval, "norm-eval", on_saved(lambda x, gamma, mean, s: (x, gamma, 0 * mean, s))),
]  # fmt: skip

SIMPLEST = {
    BatchNorm: "norm-train",
    BatchNormAddReLU: "norm-train-add-relu",
    BatchNormEval: "norm-eval",
}
