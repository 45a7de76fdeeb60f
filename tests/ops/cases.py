"""The table of all ops: the cases and planted mistakes of each family.

Inputs stay below 200 elements, so that finite differences are sharp.
"""

from __future__ import annotations

from importlib import import_module

from tests.ops.mutant import Mutant, scaled

FAMILIES = (
    "elementwise", "activation", "dropout", "reduce", "shape", "index", "linear", "conv", "norm", "pool", "loss",
)  # fmt: skip

_modules = [import_module(f"tests.ops.families.{family}") for family in FAMILIES]
CASES = [case for module in _modules for case in module.CASES]
BY_NAME = {case.name: case for case in CASES}
SIMPLEST = {function: case for module in _modules for function, case in module.SIMPLEST.items()}
MUTANTS = [mutant for module in _modules for mutant in module.MUTANTS] + [
    Mutant(f"times-{factor:.9g}", function, case, scaled(factor))
    for function, case in SIMPLEST.items()
    for factor in (1.01, 1 + 1e-6)
]
