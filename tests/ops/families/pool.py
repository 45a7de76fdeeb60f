"""Pooling: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minires import ops
from minires.kernels import adaptive_avg_pool2d_grad, avg_pool2d_grad, max_pool2d_grad
from minires.ops.pool import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from tests import reference
from tests.ops.case import NCHW, Case, away, normal
from tests.ops.mutant import Mutant, changed, instead, last_ones_lost, on_gradient, on_saved


def pooling(
    name: str,
    kind: str,
    x: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    pads: Any = None,
    **settings: Any,
) -> Case:
    """`pads`, ((top, bottom), (left, right)), is what a padding that PyTorch has not means at this geometry."""
    stride = kernel if stride is None else stride
    function, value = f"{kind}_pool2d", "exact" if kind == "max" else "sum"
    both = [(v, v) if isinstance(v, int) else v for v in (kernel, stride, padding if pads is None else pads)]
    loops = {name: (v, v) if name == "dilation" else v for name, v in settings.items()}
    if kind == "avg" and padding == "same":
        loops["count_include_pad"] = False

    def torchs(t: Any, x: Any) -> Any:
        pool = getattr(t.nn.functional, function)
        if pads is None:
            return pool(x, kernel, stride, padding, **settings)
        around = *pads[1], *pads[0]
        if kind == "max":
            return pool(t.nn.functional.pad(x, around, value=-t.inf), kernel, stride, **settings)
        zeros = t.nn.functional.pad(x, around)
        if loops.get("count_include_pad", True):
            return pool(zeros, kernel, stride, **settings)
        counted = t.nn.functional.pad(t.ones_like(x), around)
        return pool(zeros, kernel, stride) / pool(counted, kernel, stride)

    return Case(
        f"pool-{kind}-{name}", lambda x: getattr(ops, function)(x, kernel, stride, padding, **settings),
        lambda x: getattr(reference, function)(x, *both, **loops), torchs,
        away(x), value, "sum", axes=(NCHW,), out=NCHW,
    )  # fmt: skip


def adaptive(kind: str, x: Any, size: Any) -> Case:
    function = f"adaptive_{kind}_pool2d"
    shown = "x".join(map(str, size))
    return Case(
        f"pool-adaptive-{kind}-{x[1]}x{x[2]}-to-{shown}", lambda x: getattr(ops, function)(x, size),
        lambda x: getattr(reference, function)(x, tuple(o or s for o, s in zip(size, x.shape[1:3], strict=True))),
        lambda t, x: getattr(t.nn.functional, function)(x, size),
        away(x), "exact" if kind == "max" else "sum", "sum", axes=(NCHW,), out=NCHW,
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
    "valid": ((2, 5, 4, 2), 3, 2, "valid", ((0, 0), (0, 0))),
    "explicit-pads": ((2, 4, 5, 2), (3, 4), (2, 1), ((0, 1), (2, 1)), ((0, 1), (2, 1))),
    "same": ((2, 5, 4, 2), 3, 1, "same", ((1, 1), (1, 1))),
    "same-stride-2": ((2, 4, 5, 2), 3, 2, "same", ((0, 1), (1, 1))),
    "same-stride-3": ((2, 7, 5, 2), 3, 3, "same", ((1, 1), (0, 1))),
    "same-even-kernel": ((2, 5, 4, 2), (2, 4), 1, "same", ((0, 1), (1, 2))),
    "same-even-kernel-stride-2": ((2, 5, 4, 2), 4, 2, "same", ((1, 2), (1, 1))),
    "same-stride-over-kernel": ((2, 4, 8, 2), 2, 3, "same", ((0, 1), (0, 0))),
}
CEILED: dict[str, Any] = {
    "ceil": ((2, 6, 5, 2), 3, 2, 0),
    "ceil-padded": ((2, 5, 6, 2), 3, 2, 1),
    "ceil-no-rest": ((2, 6, 5, 2), (2, 3), (2, 1), 0),
    "ceil-window-would-start-on-padding": ((2, 5, 4, 2), 2, (3, 4), 1),
    "ceil-window-over-image": ((2, 2, 5, 2), (3, 4), (2, 3), 0),
}
SIZES: list[Any] = [
    ((2, 4, 6, 2), (2, 3)),
    ((2, 7, 5, 2), (3, 2)),
    ((2, 5, 4, 2), (4, 3)),
    ((2, 3, 2, 2), (5, 7)),
    ((2, 4, 3, 2), (6, 2)),
    ((2, 5, 4, 2), (None, 3)),
    ((2, 5, 4, 2), (1, None)),
]
CASES = [
    *(pooling(name, kind, *args) for kind in ("max", "avg") for name, args in WINDOWS.items()),
    *(pooling(name, kind, *args, ceil_mode=True) for kind in ("max", "avg") for name, args in CEILED.items()),
    pooling("padding-uncounted", "avg", (2, 5, 4, 2), 3, 2, 1, count_include_pad=False),
    pooling("ceil-uncounted", "avg", (2, 5, 6, 2), 3, 2, 1, ceil_mode=True, count_include_pad=False),
    pooling("dilation-2", "max", (2, 7, 6, 2), (3, 2), 1, 1, dilation=2),
    pooling("dilation-3-stride", "max", (2, 8, 7, 1), 2, (2, 1), (0, 1), dilation=3),
    pooling("same-dilated", "max", (2, 4, 5, 2), 3, 2, "same", ((1, 2), (2, 2)), dilation=2),
    pooling("ceil-dilated", "max", (2, 7, 6, 2), 2, 3, 1, dilation=3, ceil_mode=True),
    *(adaptive(kind, *args) for kind in ("max", "avg") for args in SIZES),
    adaptive("max", (2, 4, 3, 2), (1, 1)),
    everywhere((3, 4, 3, 2)),
    everywhere((2, 1, 1, 3)),
]


def with_geometry(**changes: Any) -> Any:
    """The gradient of another geometry with as many windows."""

    def backward(self: Any, gy: Any) -> Any:
        geometry = replace(self.geometry, **changes)
        if isinstance(self, MaxPool2d):
            return max_pool2d_grad(gy, self.saved[0], self.shape, self.kernel_size, geometry)
        return avg_pool2d_grad(gy, self.shape, self.kernel_size, geometry, self.count)

    return backward


def to_all_ties(self: Any, gy: Any) -> Any:
    """The mean's gradient for a maximum."""
    return avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, np.float64(1))


def last_window(self: Any, gy: Any, gx: Any) -> Any:
    """A pixel that won several windows gets one gradient, not their sum."""
    return np.clip(gx, gy.min(), gy.max())


def floored(self: Any, gy: Any) -> Any:
    """Windows that end at the floor of (i + 1)*H/OH, so that none shares a place."""
    gx = np.zeros(self.shape)
    (h, w), (oh, ow) = self.shape[1:3], self.output_size
    for p, q in np.ndindex(oh, ow):
        part = gx[:, p * h // oh : (p + 1) * h // oh, q * w // ow : (q + 1) * w // ow]
        part += gy[:, p : p + 1, q : q + 1] / max(1, part.shape[1] * part.shape[2])
    return gx


def one_count(self: Any, gy: Any) -> Any:
    """The mean's share of the windows' mean size, whatever each window's own."""
    counts = adaptive_avg_pool2d_grad(np.ones_like(gy), self.shape)
    return adaptive_avg_pool2d_grad(gy, self.shape) * counts


MUTANTS = [
    Mutant("wrong-index", MaxPool2d, "pool-max-2x2", on_saved(lambda index: ((index + 1) % 4,))),
    Mutant("first-index", MaxPool2d, "pool-max-resnet", on_saved(lambda index: (0 * index + 4,))),
    Mutant("to-all", MaxPool2d, "pool-max-2x2", instead(to_all_ties)),
    Mutant("not-summed", MaxPool2d, "pool-max-overlap", changed(last_window)),
    Mutant("not-divided", AvgPool2d, "pool-avg-2x2", changed(lambda self, gy, g: 4 * g)),
    Mutant("padding-counted", AvgPool2d, "pool-avg-padding-uncounted", instead(
        lambda self, gy: avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, np.float64(9)))),
    Mutant("rows-for-columns", AvgPool2d, "pool-avg-overlap", changed(lambda self, gy, g: g[:, ::-1])),
    Mutant("dilation-ignored", MaxPool2d, "pool-max-dilation-2", instead(
        with_geometry(dilation=(1, 1), padding=(0, 0, 0, 1)))),
    Mutant("same-on-the-wrong-side", MaxPool2d, "pool-max-same-stride-2", instead(with_geometry(padding=(1, 0, 1, 1)))),
    Mutant("same-on-the-wrong-side", AvgPool2d, "pool-avg-same-stride-2", instead(with_geometry(padding=(1, 0, 1, 1)))),
    Mutant("same-counted", AvgPool2d, "pool-avg-same", instead(
        lambda self, gy: avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, np.float64(9)))),
    Mutant("rest-counted", AvgPool2d, "pool-avg-ceil", instead(
        lambda self, gy: avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, np.float64(9)))),
    Mutant("rest-dropped", AvgPool2d, "pool-avg-ceil", on_gradient(last_ones_lost)),
    Mutant("rest-dropped", MaxPool2d, "pool-max-ceil", on_gradient(last_ones_lost)),
    Mutant("floored-ends", AdaptiveAvgPool2d, "pool-adaptive-avg-7x5-to-3x2", instead(floored)),
    Mutant("one-count", AdaptiveAvgPool2d, "pool-adaptive-avg-7x5-to-3x2", instead(one_count)),
    Mutant("not-divided", AdaptiveAvgPool2d, "pool-adaptive-avg-4x6-to-2x3", changed(lambda self, gy, g: 4 * g)),
    Mutant("rows-for-columns", AdaptiveAvgPool2d, "pool-adaptive-avg-5x4-to-4x3", changed(
        lambda self, gy, g: g[:, ::-1])),
    Mutant("next-pixel", AdaptiveMaxPool2d, "pool-adaptive-max-7x5-to-3x2", on_saved(
        lambda index: ((index + 1) % 35,))),
    Mutant("rows-counted-as-wide-as-high", AdaptiveMaxPool2d, "pool-adaptive-max-7x5-to-3x2", on_saved(
        lambda index: (index // 5 * 7 + index % 5,))),
    Mutant("not-summed", AdaptiveMaxPool2d, "pool-adaptive-max-3x2-to-5x7", changed(last_window)),
    Mutant("to-all", AdaptiveMaxPool2d, "pool-adaptive-max-4x6-to-2x3", instead(
        lambda self, gy: adaptive_avg_pool2d_grad(4 * gy, self.shape))),
]  # fmt: skip

SIMPLEST = {
    MaxPool2d: "pool-max-2x2",
    AvgPool2d: "pool-avg-2x2",
    AdaptiveAvgPool2d: "pool-adaptive-avg-7x5-to-3x2",
    AdaptiveMaxPool2d: "pool-adaptive-max-7x5-to-3x2",
}
