"""Dropout: cases, planted mistakes, and a case that shows any factor. The mask is always the same."""

from __future__ import annotations

import numpy as np

from minires import ops
from minires.kernels import dropout_mask
from minires.ops.dropout import Dropout
from tests import reference
from tests.ops.case import Case, normal
from tests.ops.mutant import Mutant, changed, instead, on_saved

SEED = 5


def mask(x: np.ndarray, p: float) -> np.ndarray:
    """The mask that a generator of SEED gives."""
    low, high = np.random.default_rng(SEED).integers(2**32, size=2).tolist()
    return reference.dropout_mask(x.shape, (low, high), p)


def case(p: float, value: str) -> Case:
    return Case(
        f"dropout-{p}", lambda x: ops.dropout(x, p, generator=np.random.default_rng(SEED)),
        lambda x: reference.elementwise(lambda v, keep: v / (1 - p) if keep else 0.0, x, mask(x, p)),
        lambda t, x: x * t.from_numpy(mask(x, p)) / max(1 - p, 1e-9), normal((4, 3, 5)), value, value,
    )  # fmt: skip


CASES = [case(0.5, "exact"), case(1.0, "exact")]
CASES += [case(p, "function") for p in (0.3, 0.9)]  # two roundings: float32 holds neither 1 - p nor the quotient

MUTANTS = [
    Mutant("no-mask", Dropout, "dropout-0.3", instead(lambda self, gy: gy / (1 - self.p))),
    Mutant("no-scale", Dropout, "dropout-0.3", changed(lambda self, gy, g: g * (1 - self.p))),
    Mutant("scale-of-the-dropped", Dropout, "dropout-0.3", changed(lambda self, gy, g: g * (1 - self.p) / self.p)),
    Mutant("dropped-ones", Dropout, "dropout-0.3", on_saved(lambda mask: (~mask,))),
    Mutant("new-mask", Dropout, "dropout-0.3", on_saved(lambda mask: (dropout_mask(mask, (1, 2), 0.3),))),
]

SIMPLEST = {Dropout: "dropout-0.3"}
