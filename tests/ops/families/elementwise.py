"""Element-by-element ops: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

import math
import operator
from functools import partial
from typing import Any

import numpy as np

from minires import ops
from minires.ops.elementwise import Add, Div, Exp, Log, Maximum, Mul, Neg, Pow, ReLU, Sqrt, Sub
from tests import reference
from tests.ops.case import Case, away, normal, positive
from tests.ops.mutant import Mutant, changed, instead, on_saved, replaced

ROWS = ((4, 3), (4, 3))  # two operands alike
REPEATED = {"row": ((4, 3), (3,)), "column": ((4, 3), (4, 1)), "both": ((4, 1, 3), (2, 1)), "number": ((4, 3), ())}


def binary(name: str, naive: Any, torch: str = "", make: Any = normal, value: str = "exact", gradient: str = "exact",
           sums: str = "sum") -> list[Case]:  # fmt: skip
    """An operator on operands that are alike, and that broadcast in four ways, where gradients are sums."""
    op = getattr(ops, name)

    def case(geometry: str, shapes: Any, gradient: str, batched: tuple[int, ...]) -> Case:
        return Case(
            f"elementwise-{name}-{geometry}", op, lambda a, b: reference.elementwise(naive, a, b),
            lambda t, a, b: getattr(t, torch or name)(a, b), make(*shapes), value, gradient, batched=batched,
        )  # fmt: skip

    first = case("alike", ROWS, gradient, (0, 1))
    return [first] + [case(n, s, sums, (0, 1) if n == "column" else (0,)) for n, s in REPEATED.items()]


def unary(name: str, naive: Any, make: Any, value: str, gradient: str) -> Case:
    return Case(
        f"elementwise-{name}", getattr(ops, name), lambda x: reference.elementwise(naive, x),
        lambda t, x: getattr(t, name)(x), make((4, 3, 5)), value, gradient,
    )  # fmt: skip


CASES = [
    *binary("add", operator.add),
    *binary("sub", operator.sub),
    *binary("mul", operator.mul),
    # divisors of 1 or more: the third derivative, which finite differences leave as their error, grows as 1 / b^4
    *binary("div", operator.truediv, make=partial(positive, low=1), gradient="function"),
    *binary("pow", operator.pow, make=positive, value="function", gradient="function", sums="function"),
    *binary("maximum", max, make=away),
    unary("neg", operator.neg, normal, "exact", "exact"),
    unary("exp", math.exp, normal, "function", "function"),
    unary("log", math.log, positive, "function", "rounded"),
    unary("sqrt", math.sqrt, positive, "rounded", "rounded"),
    unary("relu", lambda v: max(v, 0.0), away, "exact", "exact"),
    Case(
        "elementwise-pow-square", lambda x: x**2, lambda x: reference.elementwise(lambda v: v * v, x),
        lambda t, x: x**2, away((4, 3)), "exact", "exact",
    ),
    Case(
        "elementwise-add-self", lambda x: x + x, lambda x: reference.elementwise(lambda v: 2 * v, x),
        lambda t, x: x + x, normal((4, 3)),
    ),
    Case(
        "elementwise-scalars", lambda x: 1 - 2 / (x + 3), lambda x: reference.elementwise(lambda v: 1 - 2 / (v + 3), x),
        lambda t, x: 1 - 2 / (x + 3), positive((4, 3)), "function", "function",
    ),
]  # fmt: skip

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
]  # fmt: skip

SIMPLEST = {
    Add: "elementwise-add-row",
    Sub: "elementwise-sub-row",
    Mul: "elementwise-mul-row",
    Div: "elementwise-div-alike",
    Pow: "elementwise-pow-alike",
    Maximum: "elementwise-maximum-row",
    Neg: "elementwise-neg",
    Exp: "elementwise-exp",
    Log: "elementwise-log",
    Sqrt: "elementwise-sqrt",
    ReLU: "elementwise-relu",
}
