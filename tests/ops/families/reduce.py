"""Reductions: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from minires import ops
from minires.ops.reduce import AMax, MaxDim, Mean, Sum
from tests import reference
from tests.ops.case import Case, away, normal
from tests.ops.mutant import Mutant, changed, first_only, on_saved


def reduction(name: str, dim: Any, keepdim: bool) -> Case:
    axes = range(3) if dim is None else [d % 3 for d in (dim if isinstance(dim, tuple) else (dim,))]
    naive = reference.sum_over if name == "sum" else reference.mean_over
    return Case(
        f"reduce-{name}-{dim}-{keepdim}".replace(" ", ""), lambda x: getattr(ops, name)(x, dim, keepdim),
        lambda x: naive(x, axes, keepdim), lambda t, x: getattr(t, name)(x, dim, keepdim),
        normal((4, 3, 5)), "sum", "exact" if name == "sum" else "rounded",
    )  # fmt: skip


def largest(dim: int, keepdim: bool) -> Case:
    def naive(x: np.ndarray) -> np.ndarray:
        values = reference.max_along(x, dim)[0]
        return np.expand_dims(values, dim) if keepdim else values

    return Case(
        f"reduce-max-{dim}-{keepdim}", lambda x: ops.max(x, dim, keepdim).values, naive,
        lambda t, x: t.max(x, dim, keepdim).values, away((4, 3, 5)), batched=() if dim == 0 else (0,),
    )  # fmt: skip


CASES = [
    *(reduction(*args) for args in product(("sum", "mean"), (None, 0, 1, -1, (0, 2), (1, 2)), (False, True))),
    *(largest(dim, keepdim) for dim, keepdim in product((0, 1, -1), (False, True))),
    Case(
        "reduce-max-all", ops.max, lambda x: np.asarray(max(x.ravel().tolist())), lambda t, x: t.max(x),
        away((4, 3, 5)), batched=(),
    ),
    Case("reduce-sum-number", ops.sum, lambda x: x, lambda t, x: t.sum(x), normal(()), batched=()),
]  # fmt: skip

MUTANTS = [
    Mutant("mean-for-sum", Sum, "reduce-sum-1-False", changed(lambda self, gy, g: g / 3)),
    Mutant("first-only", Sum, "reduce-sum-0-False", changed(lambda self, gy, g: first_only(g))),
    Mutant("not-divided", Mean, "reduce-mean-(0,2)-True", changed(lambda self, gy, g: g * self.terms)),
    Mutant("wrong-count", Mean, "reduce-mean-(0,2)-True", changed(lambda self, gy, g: g * self.terms / 60)),
    Mutant("to-all", AMax, "reduce-max-all", changed(lambda self, gy, g: np.ones_like(g) * gy)),
    Mutant("wrong-index", MaxDim, "reduce-max-1-False", on_saved(lambda index: ((index + 1) % 3,))),
    Mutant("first-index", MaxDim, "reduce-max--1-True", on_saved(lambda index: (0 * index,))),
]  # fmt: skip

SIMPLEST = {
    Sum: "reduce-sum-1-False",
    Mean: "reduce-mean-1-False",
    AMax: "reduce-max-all",
    MaxDim: "reduce-max-1-False",
}
