"""Reductions: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from minires import ops
from minires.ops.reduce import AMax, AMin, LogSumExp, MaxDim, Mean, MinDim, Std, Sum, Var
from tests import reference
from tests.ops.case import Case, away, normal
from tests.ops.mutant import Mutant, changed, first_only, instead, on_saved

NAIVE = {"sum": math.fsum, "mean": reference.reduce.mean, "logsumexp": reference.logsumexp, "amax": max, "amin": min}
DIMS = (None, 0, 1, -1, (0, 2), (1, 2))


def axes_of(dim: Any) -> list[int]:
    """A dimension, several or all of (4, 3, 5), counted from the first."""
    return list(range(3)) if dim is None else [d % 3 for d in (dim if isinstance(dim, tuple) else (dim,))]


def reduction(name: str, dim: Any, keepdim: bool, value: str, gradient: str, make: Any = normal) -> Case:
    batched = () if name in ("amax", "amin") and 0 in axes_of(dim) else (0,)  # there is no largest of nothing
    return Case(
        f"reduce-{name}-{dim}-{keepdim}".replace(" ", ""), lambda x: getattr(ops, name)(x, dim, keepdim),
        lambda x: reference.over(NAIVE[name], x, axes_of(dim), keepdim),
        lambda t, x: getattr(t, name)(x, dim, keepdim), make((4, 3, 5)), value, gradient, batched=batched,
    )  # fmt: skip


def spread(name: str, dim: Any, keepdim: bool, correction: float) -> Case:
    """A variance or standard deviation."""

    def naive(values: list[float]) -> float:
        variance = reference.variance(values, correction)
        return variance if name == "var" else math.sqrt(variance)

    settings = {"correction": correction, "keepdim": keepdim}
    return Case(
        f"reduce-{name}-{dim}-{keepdim}-{correction}".replace(" ", ""),
        lambda x: getattr(ops, name)(x, dim, **settings),
        lambda x: reference.over(naive, x, axes_of(dim), keepdim),
        lambda t, x: getattr(t, name)(x, dim, **settings), normal((4, 3, 5)), "sum", "sum",
    )  # fmt: skip


def best(name: str, dim: int, keepdim: bool) -> Case:
    def naive(x: np.ndarray) -> np.ndarray:
        values = reference.first_of({"max": max, "min": min}[name], x, dim)[0]
        return np.expand_dims(values, dim) if keepdim else values

    return Case(
        f"reduce-{name}-{dim}-{keepdim}", lambda x: getattr(ops, name)(x, dim, keepdim).values, naive,
        lambda t, x: getattr(t, name)(x, dim, keepdim).values, away((4, 3, 5)), batched=() if dim == 0 else (0,),
    )  # fmt: skip


CASES = [
    *(reduction("sum", *args, "sum", "exact") for args in product(DIMS, (False, True))),
    *(reduction("mean", *args, "sum", "rounded") for args in product(DIMS, (False, True))),
    *(reduction("logsumexp", *args, "sum", "softmax") for args in product(DIMS[1:], (False, True))),
    *(reduction(name, *args, "exact", "exact", away) for name in ("amax", "amin") for args in product(
        DIMS[1:], (False, True))),
    *(spread(*args) for args in product(("var", "std"), DIMS, (False, True), (1, 0))),
    spread("var", 2, False, 2.5),
    *(best(*args) for args in product(("max", "min"), (0, 1, -1), (False, True))),
    *(
        Case(f"reduce-{name}-all", partial(getattr(ops, name)), lambda x, f=f: np.asarray(f(x.ravel().tolist())),
             lambda t, x, name=name: getattr(t, name)(x), away((4, 3, 5)), batched=())
        for name, f in (("max", max), ("min", min))
    ),
    Case("reduce-sum-number", ops.sum, lambda x: x, lambda t, x: t.sum(x), normal(()), batched=()),
    Case("reduce-logsumexp-number", lambda x: ops.logsumexp(x, 0), lambda x: x, lambda t, x: t.logsumexp(x, 0),
         normal(()), batched=()),
]  # fmt: skip


def uncentred(self: Any, gy: Any) -> Any:
    """As if x's mean were 0."""
    return gy * 2 * self.saved[0] / 2


MUTANTS = [
    Mutant("mean-for-sum", Sum, "reduce-sum-1-False", changed(lambda self, gy, g: g / 3)),
    Mutant("first-only", Sum, "reduce-sum-0-False", changed(lambda self, gy, g: first_only(g))),
    Mutant("not-divided", Mean, "reduce-mean-(0,2)-True", changed(lambda self, gy, g: g * self.terms)),
    Mutant("wrong-count", Mean, "reduce-mean-(0,2)-True", changed(lambda self, gy, g: g * self.terms / 60)),
    Mutant("biased", Var, "reduce-var-1-True-1", changed(lambda self, gy, g: g * 2 / 3)),
    Mutant("uncentred", Var, "reduce-var-1-True-1", instead(uncentred)),
    Mutant("no-factor-2", Var, "reduce-var-1-True-1", changed(lambda self, gy, g: g / 2)),
    Mutant("of-the-variance", Std, "reduce-std-1-True-1", changed(
        lambda self, gy, g: g * 2 * self.saved[0].std(1, keepdims=True, ddof=1))),
    Mutant("biased-root", Std, "reduce-std-1-True-1", changed(lambda self, gy, g: g * math.sqrt(2 / 3))),
    Mutant("uncentred", Std, "reduce-std-1-True-1", instead(lambda self, gy: uncentred(self, gy) / 2)),
    Mutant("not-normalised", LogSumExp, "reduce-logsumexp-1-True", instead(
        lambda self, gy: gy * np.exp(self.saved[0]))),
    Mutant("to-all", LogSumExp, "reduce-logsumexp-1-True", changed(lambda self, gy, g: gy / 3 + 0 * g)),
    Mutant("to-the-largest", LogSumExp, "reduce-logsumexp-1-True", changed(
        lambda self, gy, g: gy * (self.saved[0] == self.saved[0].max(1, keepdims=True)))),
    Mutant("to-all", AMax, "reduce-max-all", changed(lambda self, gy, g: np.ones_like(g) * gy)),
    Mutant("smallest", AMax, "reduce-amax-1-False", changed(lambda self, gy, g: -g[:, ::-1])),
    Mutant("divided-by-all", AMax, "reduce-amax-1-False", changed(lambda self, gy, g: g / 3)),
    Mutant("to-all", AMin, "reduce-min-all", changed(lambda self, gy, g: np.ones_like(g) * gy)),
    Mutant("sign", AMin, "reduce-amin-1-False", changed(lambda self, gy, g: -g)),
    Mutant("largest", AMin, "reduce-amin-1-True", changed(
        lambda self, gy, g: gy * (self.saved[0] == self.saved[0].max(1, keepdims=True)))),
    Mutant("wrong-index", MaxDim, "reduce-max-1-False", on_saved(lambda index: ((index + 1) % 3,))),
    Mutant("first-index", MaxDim, "reduce-max--1-True", on_saved(lambda index: (0 * index,))),
    Mutant("to-all", MaxDim, "reduce-max-1-True", instead(lambda self, gy: np.repeat(gy, 3, 1))),
    Mutant("wrong-index", MinDim, "reduce-min-1-False", on_saved(lambda index: ((index + 1) % 3,))),
    Mutant("first-index", MinDim, "reduce-min--1-True", on_saved(lambda index: (0 * index,))),
    Mutant("sign", MinDim, "reduce-min-1-False", changed(lambda self, gy, g: -g)),
]  # fmt: skip

SIMPLEST = {
    Sum: "reduce-sum-1-False",
    Mean: "reduce-mean-1-False",
    Var: "reduce-var-1-False-1",
    Std: "reduce-std-1-False-1",
    LogSumExp: "reduce-logsumexp-1-False",
    AMax: "reduce-max-all",
    AMin: "reduce-min-all",
    MaxDim: "reduce-max-1-False",
    MinDim: "reduce-min-1-False",
}
