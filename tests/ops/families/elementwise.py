"""Element-by-element ops: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

import math
import operator
from functools import partial
from typing import Any

import numpy as np

from minires import ops
from minires.ops.elementwise import Abs, Add, Clip, Div, Exp, Log, Maximum, Minimum, Mul, Neg, Pow, Sqrt, Sub, Where
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


def conditional(name: str, condition: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], value: str) -> Case:
    """where, over shapes of which the first has the batch, and whose conditions are mixed."""
    return Case(
        f"elementwise-where-{name}", ops.where,
        lambda c, a, b: reference.elementwise(lambda c, v, w: v if c else w, c, a, b),
        lambda t, c, a, b: t.where(c, a, b),
        lambda rng: [rng.random(condition) < 0.5, rng.standard_normal(a), rng.standard_normal(b)], "exact", value,
        batched=tuple(i for i, shape in enumerate((condition, a, b)) if shape[:1] == (4,)),
    )  # fmt: skip


def clipped(name: str, low: float | None, high: float | None) -> Case:
    return Case(
        f"elementwise-clip-{name}", lambda x: ops.clip(x, low, high),
        lambda x: reference.elementwise(lambda v: reference.held(v, low, high), x),
        lambda t, x: t.clip(x, low, high), away((4, 3, 5)),
    )  # fmt: skip


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
    *binary("minimum", min, make=away),
    conditional("alike", (4, 3), (4, 3), (4, 3), "exact"),
    conditional("condition-row", (3,), (4, 3), (4, 3), "exact"),
    conditional("broadcast", (4, 1, 3), (2, 1), (4, 1, 1), "sum"),
    conditional("numbers", (4, 3), (), (), "sum"),
    Case(
        "elementwise-where-python-number", lambda x: ops.where(x.detach() > 0, x, -0.5),
        lambda x: reference.elementwise(lambda v: v if v > 0 else -0.5, x), lambda t, x: t.where(x > 0, x, -0.5),
        away((4, 3, 5)),
    ),
    clipped("both", -0.5, 1),
    clipped("min", 0.5, None),
    clipped("max", None, -0.5),
    clipped("crossed", 1, -1),
    unary("abs", abs, away, "exact", "exact"),
    unary("neg", operator.neg, normal, "exact", "exact"),
    unary("exp", math.exp, normal, "function", "function"),
    unary("log", math.log, positive, "function", "rounded"),
    unary("sqrt", math.sqrt, positive, "rounded", "rounded"),
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
    Mutant("mean-of-the-repeated", Add, "elementwise-add-row", replaced(1, lambda self, gy, g: g / len(gy))),
    Mutant("sign", Sub, "elementwise-sub-alike", instead(lambda self, gy: (gy, gy))),
    Mutant("sign-of-both", Sub, "elementwise-sub-alike", instead(lambda self, gy: (-gy, -gy))),
    Mutant("lost-broadcast-sum", Sub, "elementwise-sub-row", instead(lambda self, gy: (gy, -gy[0]))),
    Mutant("exchanged", Mul, "elementwise-mul-alike", on_saved(lambda a, b: (b, a))),
    Mutant("lost-broadcast-sum", Mul, "elementwise-mul-row", replaced(1, lambda self, gy, g: (gy * self.saved[0])[0])),
    Mutant("as-sum", Mul, "elementwise-mul-alike", instead(lambda self, gy: (gy, gy))),
    Mutant("no-square", Div, "elementwise-div-alike", replaced(1, lambda self, gy, g: g * self.saved[1])),
    Mutant("sign", Div, "elementwise-div-alike", replaced(1, lambda self, gy, g: -g)),
    Mutant("not-inverted", Div, "elementwise-div-alike", replaced(0, lambda self, gy, g: gy * self.saved[1])),
    Mutant("exponent-kept", Pow, "elementwise-pow-alike", replaced(0, lambda self, gy, g: g * self.saved[0])),
    Mutant("no-factor", Pow, "elementwise-pow-alike", replaced(0, lambda self, gy, g: g / self.saved[1])),
    Mutant("no-logarithm", Pow, "elementwise-pow-alike", replaced(1, lambda self, gy, g: gy * self.saved[2])),
    Mutant("to-both", Maximum, "elementwise-maximum-alike", instead(lambda self, gy: (gy, gy))),
    Mutant("exchanged", Maximum, "elementwise-maximum-alike", on_saved(lambda a, b: (b, a))),
    Mutant("always-half", Maximum, "elementwise-maximum-alike", instead(lambda self, gy: (gy / 2, gy / 2))),
    Mutant("to-both", Minimum, "elementwise-minimum-alike", instead(lambda self, gy: (gy, gy))),
    Mutant("exchanged", Minimum, "elementwise-minimum-alike", on_saved(lambda a, b: (b, a))),
    Mutant("always-half", Minimum, "elementwise-minimum-alike", instead(lambda self, gy: (gy / 2, gy / 2))),
    Mutant("exchanged", Where, "elementwise-where-alike", on_saved(lambda c: (~c,))),
    Mutant("to-both", Where, "elementwise-where-alike", instead(lambda self, gy: (None, gy, gy))),
    Mutant("other-forgotten", Where, "elementwise-where-alike", replaced(2, lambda self, gy, g: 0 * g)),
    Mutant("no-mask", Clip, "elementwise-clip-both", instead(lambda self, gy: gy)),
    Mutant("only-min", Clip, "elementwise-clip-both", instead(lambda self, gy: gy * (self.saved[0] >= self.min))),
    Mutant("outside", Clip, "elementwise-clip-both", changed(lambda self, gy, g: gy - g)),
    Mutant("of-gradient", Clip, "elementwise-clip-both", instead(lambda self, gy: np.clip(gy, self.min, self.max))),
    Mutant("no-sign", Abs, "elementwise-abs", instead(lambda self, gy: gy)),
    Mutant("sign-of-gradient", Abs, "elementwise-abs", instead(lambda self, gy: gy * np.sign(gy))),
    Mutant("magnitude", Abs, "elementwise-abs", instead(lambda self, gy: gy * self.saved[0])),
    Mutant("sign", Neg, "elementwise-neg", instead(lambda self, gy: gy)),
    Mutant("magnitude", Neg, "elementwise-neg", instead(lambda self, gy: -np.abs(gy))),
    Mutant("lost", Neg, "elementwise-neg", instead(lambda self, gy: 0 * gy)),
    Mutant("power-rule", Exp, "elementwise-exp", on_saved(lambda y: (y / np.e,))),
    Mutant("of-input", Exp, "elementwise-exp", on_saved(lambda y: (np.log(y),))),
    Mutant("twice", Exp, "elementwise-exp", on_saved(lambda y: (np.exp(y),))),
    Mutant("not-inverted", Log, "elementwise-log", on_saved(lambda x: (1 / x,))),
    Mutant("of-output", Log, "elementwise-log", on_saved(lambda x: (np.log(x),))),
    Mutant("base-10", Log, "elementwise-log", changed(lambda self, gy, g: g / np.log(10))),
    Mutant("no-half", Sqrt, "elementwise-sqrt", on_saved(lambda y: (y / 2,))),
    Mutant("of-input", Sqrt, "elementwise-sqrt", on_saved(lambda y: (y * y,))),
    Mutant("not-inverted", Sqrt, "elementwise-sqrt", on_saved(lambda y: (1 / y,))),
]  # fmt: skip

SIMPLEST = {
    Add: "elementwise-add-row",
    Sub: "elementwise-sub-row",
    Mul: "elementwise-mul-row",
    Div: "elementwise-div-alike",
    Pow: "elementwise-pow-alike",
    Maximum: "elementwise-maximum-row",
    Minimum: "elementwise-minimum-row",
    Where: "elementwise-where-alike",
    Clip: "elementwise-clip-both",
    Abs: "elementwise-abs",
    Neg: "elementwise-neg",
    Exp: "elementwise-exp",
    Log: "elementwise-log",
    Sqrt: "elementwise-sqrt",
}
