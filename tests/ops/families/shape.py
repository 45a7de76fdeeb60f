"""Ops that rearrange elements: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.ops.shape import Index, Permute, Reshape
from tests import reference
from tests.ops.case import Case, normal
from tests.ops.mutant import Mutant, changed, instead


def rearrangement(name: str, op: Any, naive: Any, torch: Any = None, batched: tuple[int, ...] = (0,)) -> Case:
    return Case(
        f"shape-{name}", op, naive, torch or (lambda t, x: op(x)), normal((4, 3, 5)), batched=batched
    )  # fmt: skip


def indexing(name: str, *where: Any) -> Case:
    full = where + (slice(None),) * (3 - len([w for w in where if w is not None]))
    return rearrangement(
        f"index-{name}", lambda x: x[where], lambda x: np.array(reference.pick(x.tolist(), full)), batched=()
    )


CASES = [
    rearrangement("reshape", lambda x: x.reshape(4, -1), lambda x: reference.reshape(x, len(x), 15), batched=()),
    rearrangement("reshape-all", lambda x: x.reshape((5, 12)), lambda x: reference.reshape(x, 5, 12), batched=()),
    rearrangement("flatten", lambda x: x.flatten(), lambda x: reference.reshape(x, x.size)),
    rearrangement("flatten-1", lambda x: x.flatten(1), lambda x: reference.reshape(x, len(x), 15)),
    rearrangement("flatten-0-1", lambda x: x.flatten(0, 1), lambda x: reference.reshape(x, len(x) * 3, 5)),
    rearrangement("permute-cycle", lambda x: x.permute(2, 0, 1), lambda x: reference.permute(x, 2, 0, 1)),
    rearrangement("permute-last", lambda x: x.permute(0, -1, 1), lambda x: reference.permute(x, 0, 2, 1)),
    rearrangement("transpose", lambda x: x.transpose(0, -1), lambda x: reference.permute(x, 2, 1, 0)),
    rearrangement("T", lambda x: x.T, lambda x: reference.permute(x, 2, 1, 0), lambda t, x: x.permute(2, 1, 0)),
    indexing("number", 1),
    indexing("last", slice(None), -1),
    indexing("slice", slice(1, 3), slice(None), slice(None, None, 2)),
    indexing("new-axis", None, 2, slice(0, 2)),
    rearrangement("index-dots", lambda x: x[..., 2], lambda x: x[:, :, 2].copy(), batched=()),
    rearrangement("index-number-number", lambda x: x[0, 1, 2], lambda x: np.asarray(x[0, 1, 2]), batched=()),
]  # fmt: skip


def not_inverted(self: Any, gy: Any) -> Any:
    """The order of the forward pass once more, under the shape that the engine asks for."""
    return gy.transpose(self.order).reshape(self.inputs[0].shape)


MUTANTS = [
    Mutant("columns-first", Reshape, "shape-reshape-all", instead(lambda self, gy: gy.reshape(self.source, order="F"))),
    Mutant("not-inverted", Permute, "shape-permute-cycle", instead(not_inverted)),
    Mutant("reversed", Permute, "shape-transpose", changed(lambda self, gy, g: g[::-1])),
    Mutant("shifted", Index, "shape-index-slice", changed(lambda self, gy, g: np.roll(g, 1, axis=0))),
    Mutant("to-all", Index, "shape-index-last", instead(lambda self, gy: np.repeat(gy[:, None], 3, axis=1))),
]  # fmt: skip

SIMPLEST = {
    Reshape: "shape-reshape",
    Permute: "shape-permute-cycle",
    Index: "shape-index-slice",
}
