"""Activations: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from minires import ops
from minires.ops.activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Tanh
from tests import reference
from tests.ops.case import Case, away, normal
from tests.ops.mutant import Mutant, changed, instead, on_saved


def activation(name: str, naive: Any, tolerance: str = "function", make: Any = normal, **settings: Any) -> Case:
    """An activation; its settings, which PyTorch has too, stand in the case's name."""
    return Case(
        "-".join(["activation", name, *map(str, settings.values())]), partial(getattr(ops, name), **settings),
        lambda x: reference.elementwise(naive, x), lambda t, x: getattr(t.nn.functional, name)(x, **settings),
        make((4, 3, 5)), tolerance, tolerance,
    )  # fmt: skip


CASES = [
    activation("relu", lambda v: max(v, 0.0), "exact", away),
    activation("leaky_relu", lambda v: max(v, 0.25 * v), "exact", away, negative_slope=0.25),
    activation("leaky_relu", lambda v: v if v > 0 else -0.5 * v, "exact", away, negative_slope=-0.5),
    activation("leaky_relu", lambda v: max(v, 0.01 * v), "rounded", away, negative_slope=0.01),
    activation("sigmoid", lambda v: 1 / (1 + math.exp(-v))),
    activation("tanh", math.tanh),
    activation("silu", lambda v: v / (1 + math.exp(-v))),
    activation("gelu", reference.gelu, approximate="none"),
    activation("gelu", reference.gelu_tanh, approximate="tanh"),
]


def _no_rise(self: Any, gy: Any) -> Any:
    """GELU as if x's share were a constant."""
    (x,) = self.saved
    return gy * reference.elementwise(lambda v: math.erfc(-v / math.sqrt(2)) / 2, x)


def _wide(self: Any, gy: Any) -> Any:
    """GELU with the density of a normal variable of variance 1/2, as from erf without its sqrt(2)."""
    return _no_rise(self, gy) + gy * self.saved[0] * np.exp(-(self.saved[0] ** 2)) / math.sqrt(math.pi)


MUTANTS = [
    Mutant("no-mask", ReLU, "activation-relu", instead(lambda self, gy: gy)),
    Mutant("mask-of-gradient", ReLU, "activation-relu", changed(lambda self, gy, g: g * (gy > 0))),
    Mutant("times-output", ReLU, "activation-relu", instead(lambda self, gy: gy * self.saved[0])),
    Mutant("no-slope", LeakyReLU, "activation-leaky_relu-0.25", changed(lambda self, gy, g: g * (self.saved[0] > 0))),
    Mutant("sides-exchanged", LeakyReLU, "activation-leaky_relu-0.25", on_saved(lambda x: (-x,))),
    Mutant("mask-of-output", LeakyReLU, "activation-leaky_relu--0.5", on_saved(
        lambda x: (np.where(x > 0, x, -0.5 * x),))),
    Mutant("of-input", Sigmoid, "activation-sigmoid", on_saved(lambda y: (np.log(y / (1 - y)),))),
    Mutant("no-complement", Sigmoid, "activation-sigmoid", instead(lambda self, gy: gy * self.saved[0])),
    Mutant("squared", Sigmoid, "activation-sigmoid", instead(lambda self, gy: gy * self.saved[0] ** 2)),
    Mutant("of-input", Tanh, "activation-tanh", on_saved(lambda y: (np.arctanh(y),))),
    Mutant("no-square", Tanh, "activation-tanh", instead(lambda self, gy: gy * (1 - self.saved[0]))),
    Mutant("sign", Tanh, "activation-tanh", instead(lambda self, gy: gy * (1 + self.saved[0] ** 2))),
    Mutant("no-product-rule", SiLU, "activation-silu", instead(lambda self, gy: gy / (1 + np.exp(-self.saved[0])))),
    Mutant("of-sigmoid", SiLU, "activation-silu", instead(
        lambda self, gy: gy / (2 + 2 * np.cosh(self.saved[0])))),
    Mutant("of-output", SiLU, "activation-silu", on_saved(lambda x: (x / (1 + np.exp(-x)),))),
    Mutant("no-product-rule", GELU, "activation-gelu-none", instead(_no_rise)),
    Mutant("no-root-of-2", GELU, "activation-gelu-none", instead(_wide)),
    Mutant("tanhs", GELU, "activation-gelu-none", changed(
        lambda self, gy, g: ops.activation.gelu_tanh_grad(gy, self.saved[0]))),
    Mutant("erfs", GELU, "activation-gelu-tanh", changed(
        lambda self, gy, g: ops.activation.gelu_grad(gy, self.saved[0]))),
]  # fmt: skip

SIMPLEST = {
    ReLU: "activation-relu",
    LeakyReLU: "activation-leaky_relu-0.25",
    Sigmoid: "activation-sigmoid",
    Tanh: "activation-tanh",
    SiLU: "activation-silu",
    GELU: "activation-gelu-none",
}
