"""Pooling: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import ops
from minires.kernels import avg_pool2d_grad
from minires.ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from tests import reference
from tests.ops.case import NCHW, Case, away, normal
from tests.ops.mutant import Mutant, changed, instead, on_saved


def pooling(name: str, kind: str, x: Any, kernel: Any, stride: Any = None, padding: Any = 0, **settings: Any) -> Case:
    both = [(v, v) if isinstance(v, int) else v for v in (kernel, kernel if stride is None else stride, padding)]
    function, value = f"{kind}_pool2d", "exact" if kind == "max" else "sum"
    return Case(
        f"pool-{kind}-{name}", lambda x: getattr(ops, function)(x, kernel, stride, padding, **settings),
        lambda x: getattr(reference, function)(x, *both, **settings),
        lambda t, x: getattr(t.nn.functional, function)(x, kernel, stride, padding, **settings),
        away(x), value, "sum", axes=(NCHW,), out=NCHW,
    )  # fmt: skip


def everywhere(x: Any) -> Case:
    return Case(
        f"pool-global-{x[1]}x{x[2]}", lambda x: ops.adaptive_avg_pool2d(x, 1),
        lambda x: reference.mean_over(x, (1, 2), True), lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, 1),
        normal(x), "sum", "rounded", axes=(NCHW,), out=NCHW,
    )  # fmt: skip


WINDOWS: dict[str, Any] = {
    "2x2": ((2, 4, 6, 2), 2),
    "resnet": ((2, 7, 6, 2), 3, 2, 1),
    "overlap": ((2, 5, 4, 2), 3, 1, 1),
    "even-overlap": ((1, 5, 6, 2), (2, 4), (1, 2), (1, 2)),
    "leaves-rest": ((2, 7, 8, 1), (3, 2), (3, 3)),
    "stride-over-kernel": ((2, 7, 6, 2), 1, (3, 2)),
    "whole-image": ((3, 4, 3, 2), (4, 3)),
}
CASES = [
    *(pooling(name, kind, *args) for kind in ("max", "avg") for name, args in WINDOWS.items()),
    pooling("padding-uncounted", "avg", (2, 5, 4, 2), 3, 2, 1, count_include_pad=False),
    everywhere((3, 4, 3, 2)),
    everywhere((2, 1, 1, 3)),
]


def to_all_ties(self: Any, gy: Any) -> Any:
    """The mean's gradient for a maximum."""
    return avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, np.float64(1))


def last_window(self: Any, gy: Any, gx: Any) -> Any:
    """A pixel that won several windows gets one gradient, not their sum."""
    return np.clip(gx, gy.min(), gy.max())


MUTANTS = [
    Mutant("wrong-index", MaxPool2d, "pool-max-2x2", on_saved(lambda index: ((index + 1) % 4,))),
    Mutant("first-index", MaxPool2d, "pool-max-resnet", on_saved(lambda index: (0 * index + 4,))),
    Mutant("to-all", MaxPool2d, "pool-max-2x2", instead(to_all_ties)),
    Mutant("not-summed", MaxPool2d, "pool-max-overlap", changed(last_window)),
    Mutant("not-divided", AvgPool2d, "pool-avg-2x2", changed(lambda self, gy, g: 4 * g)),
    Mutant("padding-counted", AvgPool2d, "pool-avg-padding-uncounted", instead(
        lambda self, gy: avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, np.float64(9)))),
    Mutant("rows-for-columns", AvgPool2d, "pool-avg-overlap", changed(lambda self, gy, g: g[:, ::-1])),
    Mutant("not-divided", GlobalAvgPool2d, "pool-global-4x3", changed(lambda self, gy, g: 12 * g)),
    Mutant("wrong-count", GlobalAvgPool2d, "pool-global-4x3", changed(lambda self, gy, g: 12 / 16 * g)),
]  # fmt: skip

SIMPLEST = {
    MaxPool2d: "pool-max-2x2",
    AvgPool2d: "pool-avg-2x2",
    GlobalAvgPool2d: "pool-global-4x3",
}
