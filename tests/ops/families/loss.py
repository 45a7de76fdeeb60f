"""Softmax and losses: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from minires import ops
from minires.ops.loss import CrossEntropy, LogSoftmax, NLLLoss, Softmax
from tests import reference
from tests.ops.case import Case, normal
from tests.ops.mutant import Mutant, instead, replaced

LABELS = np.array([0, 4, 2, 2])


def soft(name: str, dim: int) -> Case:
    return Case(
        f"loss-{name}-{dim}", lambda z: getattr(ops, name)(z, dim),
        lambda z: getattr(reference, name)(z, dim), lambda t, z: getattr(t, name)(z, dim),
        normal((4, 3, 5)), "softmax", "softmax", batched=(0,),
    )  # fmt: skip


def scored(name: str, reduction: str) -> Case:
    function = "nll_loss" if name == "nll" else name
    exact = name == "nll" and reduction != "mean"
    return Case(
        f"loss-{name}-{reduction}", lambda z, t: getattr(ops, function)(z, t, reduction=reduction),
        lambda z, t: getattr(reference, name)(z, t, reduction),
        lambda torch, z, t: getattr(torch.nn.functional, function)(z, t, reduction=reduction),
        lambda rng: [rng.standard_normal((4, 5)), LABELS], "cross_entropy", "exact" if exact else "cross_entropy",
        batched=(0, 1),
    )  # fmt: skip


CASES = [
    *(soft(name, dim) for name, dim in product(("softmax", "log_softmax"), (-1, 1, 0))),
    *(scored(name, reduction) for name, reduction in product(("nll", "cross_entropy"), ("mean", "sum", "none"))),
]


def without_onehot(self: Any, gy: Any, gz: Any) -> Any:
    target = self.saved[1]
    return gz + gy[:, None] * (np.arange(gz.shape[1]) == target[:, None])


MUTANTS = [
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

SIMPLEST = {
    Softmax: "loss-softmax--1",
    LogSoftmax: "loss-log_softmax--1",
    NLLLoss: "loss-nll-mean",
    CrossEntropy: "loss-cross_entropy-mean",
}
