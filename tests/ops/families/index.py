"""Indexing: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.ops.index import Index, Take
from tests import reference
from tests.ops.case import Case, normal
from tests.ops.mutant import Mutant, changed, instead

ALL = slice(None)
ROWS, COLUMNS = np.array([3, 0, 3, -1, 3]), np.array([[1, 0], [-1, 1], [1, 1]])
MASK = np.array([True, False, True, True])
MASK2 = np.arange(12).reshape(4, 3) % 5 < 2


def basic(name: str, *where: Any) -> Case:
    full = where + (ALL,) * (3 - len([w for w in where if w is not None]))
    return Case(
        f"index-{name}", lambda x: x[where], lambda x: np.array(reference.pick(x.tolist(), full)),
        lambda t, x: x[where], normal((4, 3, 5)), batched=(),
    )  # fmt: skip


def arrays(name: str, *where: Any, torch: bool = True, gradient: str = "sum") -> Case:
    """An index with arrays in it, which are inputs of the case."""

    def with_arrays(given: Any) -> tuple[Any, ...]:
        rest = iter(given)
        return tuple(next(rest) if isinstance(part, np.ndarray) else part for part in where)

    given = [part for part in where if isinstance(part, np.ndarray)]
    return Case(
        f"index-{name}", lambda x, *given: x[with_arrays(given)],
        lambda x, *given: reference.take(x, *with_arrays(given)), lambda t, x, *given: x[with_arrays(given)],
        lambda rng: [rng.standard_normal((4, 3, 5)), *(part.copy() for part in given)], "exact", gradient,
        batched=(1,) if len(given) == 1 and given[0].dtype != bool else (),
    )  # fmt: skip


CASES = [
    arrays("mask-of-two-beside-a-place", MASK2, np.array([2])),
    basic("number", 1),
    basic("last", ALL, -1),
    basic("slice", slice(1, 3), ALL, slice(None, None, 2)),
    basic("new-axis", None, 2, slice(0, 2)),
    Case("index-dots", lambda x: x[..., 2], lambda x: x[:, :, 2].copy(), lambda t, x: x[..., 2], normal((4, 3, 5)),
         batched=()),
    Case("index-number-number", lambda x: x[0, 1, 2], lambda x: np.asarray(x[0, 1, 2]), lambda t, x: x[0, 1, 2],
         normal((4, 3, 5)), batched=()),
    arrays("rows", ROWS),
    arrays("table", COLUMNS),
    arrays("middle", ALL, COLUMNS),
    arrays("last-axis", ALL, ALL, ROWS),
    arrays("steps", slice(0, 4, 3), ROWS % 3, slice(1, 4)),
    arrays("pairs", ROWS, ROWS % 3),
    arrays("broadcast", COLUMNS, np.array([2, 0])),
    arrays("apart", COLUMNS, ALL, np.array([2, 0])),
    arrays("mask", MASK, gradient="exact"),
    arrays("mask-of-two", MASK2, gradient="exact"),
    arrays("mask-middle", ALL, MASK[:3], gradient="exact"),
    arrays("mask-and-row", MASK, np.array([2])),
    arrays("mask-of-all", np.arange(60).reshape(4, 3, 5) % 7 < 3, gradient="exact"),
]  # fmt: skip


def last_wins(self: Any, gy: Any) -> Any:
    """As if no element were taken twice."""
    gx = np.zeros(self.shape)
    gx[self._where()] = gy
    return gx, None


MUTANTS = [
    Mutant("shifted", Index, "index-slice", changed(lambda self, gy, g: np.roll(g, 1, axis=0))),
    Mutant("to-all", Index, "index-last", instead(lambda self, gy: np.repeat(gy[:, None], 3, axis=1))),
    Mutant("backwards", Index, "index-slice", changed(lambda self, gy, g: g[:, :, ::-1])),
    Mutant("last-wins", Take, "index-rows", instead(last_wins)),
    Mutant("mean-for-sum", Take, "index-rows", changed(
        lambda self, gy, g: (g[0] / np.array([1, 1, 1, 4]).reshape(4, 1, 1), None))),
    Mutant("unsorted", Take, "index-middle", changed(lambda self, gy, g: (g[0][:, ::-1], None))),
    Mutant("shifted-mask", Take, "index-mask", changed(lambda self, gy, g: (np.roll(g[0], 1, axis=0), None))),
    Mutant("unmasked", Take, "index-mask", changed(lambda self, gy, g: (g[0] + (g[0] == 0), None))),
]  # fmt: skip

SIMPLEST = {Index: "index-slice", Take: "index-rows"}
