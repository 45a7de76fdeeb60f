"""Ops that rearrange elements: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import ops
from minires.ops.shape import Concatenate, Expand, Pad, Permute, Reshape
from tests import reference
from tests.ops.case import Case, normal
from tests.ops.mutant import Mutant, changed, first_only, instead, replaced


def rearrangement(
    name: str, op: Any, naive: Any, torch: Any = None, batched: tuple[int, ...] = (0,), make: Any = None,
    gradient: str = "exact",
) -> Case:  # fmt: skip
    return Case(
        f"shape-{name}", op, naive, torch or (lambda t, *x: op(*x)), make or normal((4, 3, 5)), "exact", gradient,
        batched=batched,
    )  # fmt: skip


def padding(name: str, pads: tuple[int, ...], mode: str = "constant", value: float | None = None) -> Case:
    """pads as PyTorch has them, last axis first; its own mirrored ones are for the last two of three axes."""
    pairs = [(0, 0)] * (3 - len(pads) // 2) + [(pads[i], pads[i + 1]) for i in range(len(pads) - 2, -1, -2)]
    return rearrangement(
        f"pad-{name}", lambda x: ops.pad(x, pads, mode, value), lambda x: reference.pad(x, pairs, mode, value or 0),
        lambda t, x: t.nn.functional.pad(x, pads, mode, value), (0,) if len(pads) < 6 else (),
        gradient="exact" if mode == "constant" else "function",  # sums of sums, one axis after the other
    )  # fmt: skip


def joined(name: str, op: str, dim: int, *shapes: tuple[int, ...]) -> Case:
    def naive(*arrays: np.ndarray) -> np.ndarray:
        return reference.concatenate([a[:, None] for a in arrays] if op == "stack" else arrays, 1 if dim == 1 else dim)

    return rearrangement(
        f"{op}-{name}", lambda *x: getattr(ops, op)(x, dim), naive, lambda t, *x: getattr(t, op)(x, dim),
        tuple(range(len(shapes))), normal(*shapes),
    )  # fmt: skip


CASES = [
    rearrangement("reshape", lambda x: x.reshape(4, -1), lambda x: reference.reshape(x, len(x), 15), batched=()),
    rearrangement("reshape-all", lambda x: x.reshape((5, 12)), lambda x: reference.reshape(x, 5, 12), batched=()),
    rearrangement("flatten", lambda x: x.flatten(), lambda x: reference.reshape(x, x.size)),
    rearrangement("flatten-1", lambda x: x.flatten(1), lambda x: reference.reshape(x, len(x), 15)),
    rearrangement("flatten-0-1", lambda x: x.flatten(0, 1), lambda x: reference.reshape(x, len(x) * 3, 5)),
    rearrangement("unflatten", lambda x: x.unflatten(0, (2, -1)), lambda x: reference.reshape(x, 2, len(x) // 2, 3, 5)),
    rearrangement("permute-cycle", lambda x: x.permute(2, 0, 1), lambda x: reference.permute(x, 2, 0, 1)),
    rearrangement("permute-last", lambda x: x.permute(0, -1, 1), lambda x: reference.permute(x, 0, 2, 1)),
    rearrangement("transpose", lambda x: x.transpose(0, -1), lambda x: reference.permute(x, 2, 1, 0)),
    rearrangement("T", lambda x: x.T, lambda x: reference.permute(x, 2, 1, 0), lambda t, x: x.permute(2, 1, 0)),
    rearrangement("unsqueeze", lambda x: x.unsqueeze(-1), lambda x: reference.reshape(x, *x.shape, 1)),
    rearrangement("squeeze", lambda x: x.squeeze(1), lambda x: reference.reshape(x, len(x), 5), make=normal((4, 1, 5))),
    rearrangement("expand", lambda x: x.expand(4, -1, 5), lambda x: reference.expand(x, 4, 3, 5), batched=(),
                  make=normal((1, 3, 1)), gradient="sum"),
    rearrangement("expand-front", lambda x: x.expand(2, *x.shape), lambda x: reference.expand(x, 2, *x.shape),
                  gradient="sum"),
    rearrangement("expand-column", lambda x: x.expand(-1, 3), lambda x: reference.expand(x, len(x), 3),
                  make=normal((4, 1)), gradient="sum"),
    joined("rows", "concatenate", 0, (4, 3), (2, 3), (1, 3)),
    joined("columns", "concatenate", -1, (4, 3), (4, 2)),
    joined("new", "stack", 1, (4, 3), (4, 3), (4, 3)),
    rearrangement("split", lambda x: x.split(2, 1)[0] * 2 + x.split([1, 2], 1)[1],
                  lambda x: 2 * x[:, :2] + x[:, 1:]),
    rearrangement("chunk", lambda x: x.chunk(2, -1)[1], lambda x: x[..., 3:].copy()),
    padding("last", (1, 2)),
    padding("images", (0, 0, 1, 2), value=1.5),
    padding("all", (1, 0, 0, 2, 1, 1)),
    padding("crop", (-1, 2, 1, -2)),
    padding("reflect", (2, 4), "reflect"),
    padding("reflect-two", (1, 2, 2, 1), "reflect"),
    padding("replicate", (3, 0), "replicate"),
    padding("replicate-two", (1, 2, 4, 5), "replicate"),
]  # fmt: skip


def not_inverted(self: Any, gy: Any) -> Any:
    """The order of the forward pass once more, under the shape that the engine asks for."""
    return gy.transpose(self.order).reshape(self.inputs[0].shape)


MUTANTS = [
    Mutant("columns-first", Reshape, "shape-reshape-all", instead(lambda self, gy: gy.reshape(self.source, order="F"))),
    Mutant("backwards", Reshape, "shape-flatten", changed(lambda self, gy, g: g[::-1])),
    Mutant("transposed", Reshape, "shape-squeeze", instead(lambda self, gy: gy.T.reshape(self.source))),
    Mutant("not-inverted", Permute, "shape-permute-cycle", instead(not_inverted)),
    Mutant("reversed", Permute, "shape-transpose", changed(lambda self, gy, g: g[::-1])),
    Mutant("reshaped", Permute, "shape-permute-last", instead(lambda self, gy: gy.reshape(self.inputs[0].shape))),
    Mutant("lost-sum", Expand, "shape-expand", instead(lambda self, gy: gy[:1, :, :1].copy())),
    Mutant("mean-for-sum", Expand, "shape-expand-column", changed(lambda self, gy, g: g / 3)),
    Mutant("first-only", Expand, "shape-expand-front", instead(lambda self, gy: gy[0].copy())),
    Mutant("exchanged", Concatenate, "shape-stack-new", changed(lambda self, gy, g: g[::-1])),
    Mutant("lost-part", Concatenate, "shape-concatenate-columns", replaced(1, lambda self, gy, g: 0 * g)),
    Mutant("first-rows", Concatenate, "shape-concatenate-rows", replaced(1, lambda self, gy, g: gy[:2])),
    Mutant("from-the-corner", Pad, "shape-pad-images", instead(lambda self, gy: gy[:, :3])),
    Mutant("border-added", Pad, "shape-pad-last", changed(lambda self, gy, g: g + gy[..., :1])),
    Mutant("first-only", Pad, "shape-pad-all", changed(lambda self, gy, g: first_only(g))),
]  # fmt: skip

SIMPLEST = {
    Reshape: "shape-reshape",
    Permute: "shape-permute-cycle",
    Expand: "shape-expand",
    Concatenate: "shape-concatenate-rows",
    Pad: "shape-pad-last",
}
