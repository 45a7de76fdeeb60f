"""Softmax and losses: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from minires import ops
from minires.ops.loss import BCEWithLogits, CrossEntropy, LogSoftmax, NLLLoss, SoftCrossEntropy, Softmax, SquaredError
from tests import reference
from tests.ops.case import Case, away, beside, normal
from tests.ops.mutant import Mutant, instead, on_saved, replaced

REDUCTIONS = ("mean", "sum", "none")
LABELS, IGNORED = np.array([0, 4, 2, 2]), np.array([0, -100, 2, -100])
WEIGHT = np.array([0.5, 1.0, 2.0, 0.25, 1.5])  # which float16 holds


def soft(name: str, dim: int) -> Case:
    return Case(
        f"loss-{name}-{dim}", lambda z: getattr(ops, name)(z, dim),
        lambda z: getattr(reference, name)(z, dim), lambda t, z: getattr(t, name)(z, dim),
        normal((4, 3, 5)), "softmax", "softmax", batched=(0,),
    )  # fmt: skip


def scored(name: str, target: Any = LABELS, variant: str = "", reduction: str = "mean", weighted: bool = False,
           ignored: int = -100, smoothing: float = 0.0, batched: tuple[int, ...] = (0, 1)) -> Case:  # fmt: skip
    """A loss of class scores. `target` is class numbers, or the shape of drawn probabilities."""
    function = "nll_loss" if name == "nll" else name
    given = isinstance(target, np.ndarray)
    shape = (*target.shape, 5) if given else target
    weight = WEIGHT if weighted else None
    mixed = {"label_smoothing": smoothing} if smoothing else {}
    axes = (0, len(shape) - 1, *range(1, len(shape) - 1)) if len(shape) > 2 else None

    def op(z: Any, t: Any) -> Any:
        w = None if weight is None else beside(weight, z)
        return getattr(ops, function)(z, t, w, ignore_index=ignored, reduction=reduction, **mixed)

    def torchs(torch: Any, z: Any, t: Any) -> Any:
        w = None if weight is None else torch.from_numpy(weight)
        call = getattr(torch.nn.functional, function)
        return call(z, t, weight=w, ignore_index=ignored, reduction=reduction, **mixed)

    def make(rng: np.random.Generator) -> list[np.ndarray]:
        return [rng.standard_normal(shape), target if given else rng.dirichlet(np.ones(5), shape[:-1])]

    exact = name == "nll" and reduction != "mean" and not weighted
    return Case(
        "-".join(filter(None, ("loss", name, variant, reduction))), op,
        lambda z, t: getattr(reference, name)(z, t, reduction, weight, ignored, *mixed.values()), torchs, make,
        "cross_entropy", "exact" if exact else "cross_entropy", batched=batched,
        axes=(axes, None if given else axes),
    )  # fmt: skip


def squared(reduction: str) -> Case:
    return Case(
        f"loss-mse-{reduction}", lambda x, t: ops.mse_loss(x, t, reduction=reduction),
        lambda x, t: reference.reduced(reference.elementwise(lambda a, b: (a - b) ** 2, x, t), reduction),
        lambda torch, x, t: torch.nn.functional.mse_loss(x, t, reduction=reduction), normal((4, 3, 5), (4, 3, 5)),
        "function", "function", batched=(0, 1),
    )  # fmt: skip


def absolute(reduction: str, value: str, gradient: str) -> Case:
    return Case(
        f"loss-l1-{reduction}", lambda x, t: ops.l1_loss(x, t, reduction=reduction),
        lambda x, t: reference.reduced(reference.elementwise(lambda a, b: abs(a - b), x, t), reduction),
        lambda torch, x, t: torch.nn.functional.l1_loss(x, t, reduction=reduction), away((4, 3, 5), (4, 3, 5)),
        value, gradient, batched=(0, 1),
    )  # fmt: skip


def binary(variant: str, reduction: str = "mean", weight: Any = None, pos_weight: Any = None,
           batched: tuple[int, ...] = (0, 1)) -> Case:  # fmt: skip
    constants = {"weight": weight, "pos_weight": pos_weight}

    def op(x: Any, t: Any) -> Any:
        like = {k: None if v is None else beside(v, x) for k, v in constants.items()}
        return ops.binary_cross_entropy_with_logits(x, t, reduction=reduction, **like)

    def torchs(torch: Any, x: Any, t: Any) -> Any:
        tensors = {k: None if v is None else torch.from_numpy(v) for k, v in constants.items()}
        return torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction=reduction, **tensors)

    def naive(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        ones = (np.ones(()) if v is None else v for v in (weight, pos_weight))
        return reference.reduced(reference.bce_with_logits(x, t, *ones), reduction)

    return Case(
        f"loss-bce-{variant}", op, naive, torchs, lambda rng: [3 * rng.standard_normal((4, 5)), rng.random((4, 5))],
        "cross_entropy", "cross_entropy", batched=batched,
    )  # fmt: skip


CASES = [
    *(soft(name, dim) for name, dim in product(("softmax", "log_softmax"), (-1, 1, 0))),
    *(
        scored(name, target, variant, reduction, **settings)
        for (name, reduction), (variant, target, settings) in product(
            product(("nll", "cross_entropy"), REDUCTIONS),
            (
                ("", LABELS, {}),
                ("weighted", LABELS, {"weighted": True}),
                ("ignored", IGNORED, {}),
                ("weighted-ignored", LABELS, {"weighted": True, "ignored": 2}),
            ),
        )
    ),
    *(
        scored("cross_entropy", target, variant, reduction, **settings)
        for reduction, (variant, target, settings) in product(
            REDUCTIONS,
            (
                ("smooth", LABELS, {"smoothing": 0.1}),
                ("smooth-weighted", LABELS, {"smoothing": 0.3, "weighted": True}),
                ("smooth-ignored", IGNORED, {"smoothing": 0.1}),
                ("smooth-weighted-ignored", LABELS, {"smoothing": 0.3, "weighted": True, "ignored": 2}),
                ("soft", (4, 5), {}),
                ("soft-weighted", (4, 5), {"weighted": True}),
                ("soft-smooth-weighted", (4, 5), {"smoothing": 0.2, "weighted": True}),
            ),
        )
    ),
    scored("cross_entropy", LABELS, "uniform", smoothing=1.0),
    *(
        case
        for reduction in REDUCTIONS
        for case in (
            scored("cross_entropy", np.array([[[0, 1], [4, 3]], [[2, 2], [0, 1]]]), "image", reduction, weighted=True),
            scored("cross_entropy", (2, 3, 2, 5), "soft-image", reduction, weighted=True),
            scored("cross_entropy", np.array(3), "one-row", reduction, batched=()),
            scored("cross_entropy", (5,), "soft-one-row", reduction, batched=()),
            scored("nll", np.array([[0, 1, 4], [2, 2, 3]]), "sequence", reduction),
        )
    ),
    *(squared(reduction) for reduction in REDUCTIONS),
    absolute("mean", "sum", "rounded"),
    absolute("sum", "sum", "exact"),
    absolute("none", "exact", "exact"),
    *(binary(reduction, reduction) for reduction in REDUCTIONS),
    binary("pos-weight", pos_weight=WEIGHT),
    binary("weight-pos-weight-none", "none", weight=WEIGHT[::-1].copy(), pos_weight=WEIGHT),
    binary("row-weight", "none", weight=np.array([[0.5], [2.0], [1.0], [4.0]]), batched=()),
    binary("weight-number", "sum", weight=np.array(0.5), pos_weight=np.array(3.0)),
]


def without_onehot(self: Any, gy: Any, gz: Any) -> Any:
    target = self.saved[1]
    return gz + gy[:, None] * (np.arange(gz.shape[1]) == target[:, None])


def p_minus_q(self: Any, gy: Any, right: Any) -> Any:
    """As if q summed to 1."""
    z, q = self.saved
    return gy[:, None] * (reference.softmax(z, 1) - q)


def unscaled(mistake: str, function: type, case: str) -> Mutant:
    return Mutant(mistake, function, case, on_saved(lambda *saved: (*saved[:-1], None)))


MUTANTS = [
    Mutant("diagonal-only", Softmax, "loss-softmax--1", instead(lambda self, gy: self.saved[0] * gy)),
    Mutant("no-sum", LogSoftmax, "loss-log_softmax--1", instead(lambda self, gy: gy - np.exp(self.saved[0]))),
    Mutant("wrong-axis", LogSoftmax, "loss-log_softmax--1", instead(
        lambda self, gy: gy - np.exp(self.saved[0]) * gy.sum(1, keepdims=True))),
    Mutant("sign", NLLLoss, "loss-nll-mean", replaced(0, lambda self, gy, g: -g)),
    Mutant("wrong-class", NLLLoss, "loss-nll-sum", replaced(0, lambda self, gy, g: np.roll(g, 1, axis=1))),
    unscaled("weight-forgotten", NLLLoss, "loss-nll-weighted-mean"),
    unscaled("ignored-rows-leak", NLLLoss, "loss-nll-ignored-mean"),
    Mutant("no-onehot", CrossEntropy, "loss-cross_entropy-mean", replaced(0, without_onehot)),
    Mutant("row-lost", CrossEntropy, "loss-cross_entropy-none", replaced(
        0, lambda self, gy, g: g / gy[:, None] * gy[0])),
    Mutant("mean-twice", CrossEntropy, "loss-cross_entropy-mean", replaced(0, lambda self, gy, g: g / len(g))),
    unscaled("weight-forgotten", CrossEntropy, "loss-cross_entropy-weighted-sum"),
    unscaled("ignored-rows-leak", CrossEntropy, "loss-cross_entropy-ignored-mean"),
    Mutant("mean-over-all-rows", CrossEntropy, "loss-cross_entropy-weighted-ignored-mean", replaced(
        0, lambda self, gy, g: g * self.saved[2].mean())),
    Mutant("smoothing-forgotten", SoftCrossEntropy, "loss-cross_entropy-smooth-mean", on_saved(
        lambda z, q: (z, (q == q.max(1, keepdims=True)).astype(q.dtype)))),
    Mutant("weights-sum-to-1", SoftCrossEntropy, "loss-cross_entropy-smooth-weighted-mean", replaced(0, p_minus_q)),
    Mutant("target-is-constant", SoftCrossEntropy, "loss-cross_entropy-soft-mean", replaced(
        1, lambda self, gy, g: 0 * g)),
    Mutant("logits-for-logs", SoftCrossEntropy, "loss-cross_entropy-soft-mean", replaced(
        1, lambda self, gy, g: -gy[:, None] * self.saved[0])),
    Mutant("no-2", SquaredError, "loss-mse-mean", replaced(0, lambda self, gy, g: g / 2)),
    Mutant("same-sign", SquaredError, "loss-mse-mean", replaced(1, lambda self, gy, g: -g)),
    Mutant("absolute", SquaredError, "loss-mse-none", replaced(0, lambda self, gy, g: abs(g))),
    unscaled("no-pos-weight", BCEWithLogits, "loss-bce-pos-weight"),
    Mutant("pos-weight-on-both", BCEWithLogits, "loss-bce-pos-weight", replaced(
        0, lambda self, gy, g: gy * (1 / (1 + np.exp(-self.saved[0])) - self.saved[1]) * self.saved[2])),
    Mutant("target-forgotten", BCEWithLogits, "loss-bce-mean", replaced(
        0, lambda self, gy, g: g + gy * self.saved[1])),
    Mutant("target-is-constant", BCEWithLogits, "loss-bce-mean", replaced(1, lambda self, gy, g: 0 * g)),
]  # fmt: skip

SIMPLEST = {
    Softmax: "loss-softmax--1",
    LogSoftmax: "loss-log_softmax--1",
    NLLLoss: "loss-nll-mean",
    CrossEntropy: "loss-cross_entropy-mean",
    SoftCrossEntropy: "loss-cross_entropy-soft-mean",
    SquaredError: "loss-mse-mean",
    BCEWithLogits: "loss-bce-mean",
}
