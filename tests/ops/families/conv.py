"""Convolutions: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import ops
from minires.kernels import ConvGeometry, conv2d_grad_input
from minires.ops.conv import Conv2d
from tests import reference
from tests.ops.case import NCHW, OIHW, Case, normal
from tests.ops.mutant import Mutant, first_only, on_saved, replaced, zero


def convolution(name: str, x: Any, w: Any, stride: Any = 1, padding: Any = 0, bias: bool = False) -> Case:
    both = [(v, v) if isinstance(v, int) else v for v in (stride, padding)]
    return Case(
        f"conv-{name}", lambda x, w, b=None: ops.conv2d(x, w, b, stride, padding),
        lambda x, w, b=None: reference.conv2d(x, w, b, *both),
        lambda t, x, w, b=None: t.nn.functional.conv2d(x, w, b, stride, padding),
        normal(x, w, *([(w[3],)] if bias else [])), "gemm", "gemm", axes=(NCHW, OIHW), out=NCHW,
    )  # fmt: skip


CASES = [
    convolution("3x3", (2, 5, 4, 2), (3, 3, 2, 3), 1, 1),
    convolution("3x3-bias", (2, 5, 4, 2), (3, 3, 2, 3), 1, 1, bias=True),
    convolution("square-channels", (2, 4, 5, 3), (3, 3, 3, 3), 1, 1),
    convolution("3x3-stride-2", (2, 5, 7, 2), (3, 3, 2, 2), 2, 1),
    convolution("even-kernel", (2, 5, 6, 2), (2, 4, 2, 2), 1, 1, bias=True),
    convolution("even-kernel-stride-2", (2, 6, 5, 2), (4, 2, 2, 2), 2, (2, 1)),
    convolution("stride-leaves-rest", (2, 6, 8, 2), (3, 3, 2, 2), 2, 0),
    convolution("stride-3-leaves-rest", (1, 8, 9, 2), (2, 2, 2, 3), 3, 0),
    convolution("stride-pair", (2, 7, 5, 2), (3, 3, 2, 2), (3, 1), 1),
    convolution("padding-pair", (2, 4, 3, 2), (3, 2, 2, 3), 1, (2, 0)),
    convolution("stride-over-kernel", (2, 7, 6, 2), (1, 2, 2, 3), (3, 2), 0),
    convolution("one-image", (1, 5, 4, 3), (3, 3, 3, 2), 1, 1, bias=True),
    convolution("1x1", (2, 3, 4, 3), (1, 1, 3, 4), 1, 0, bias=True),
    convolution("1x1-stride-2", (2, 5, 4, 3), (1, 1, 3, 4), 2, 0),
    convolution("kernel-is-image", (3, 4, 3, 2), (4, 3, 2, 5), 1, 0, bias=True),
    convolution("wide-padding", (1, 3, 2, 2), (3, 3, 2, 2), 2, 3),
    convolution("one-channel", (2, 5, 4, 1), (3, 3, 1, 1), 1, 1),
]


def without_stride(self: Any, gy: Any, gx: Any) -> Any:
    """The windows' gradients laid side by side, as if the stride were 1."""
    w = self.saved[1]
    dense = (len(gy), gy.shape[1] + w.shape[0] - 1, gy.shape[2] + w.shape[1] - 1, w.shape[2])
    out = np.zeros_like(gx)
    out[:, : dense[1], : dense[2]] = conv2d_grad_input(gy, w, dense, ConvGeometry())[:, : gx.shape[1], : gx.shape[2]]
    return out


def assigned(self: Any, gy: Any, gx: Any) -> Any:
    """col2im that assigns where windows overlap."""
    w, (top, _, left, _) = self.saved[1], self.geometry.padding
    out = np.zeros((len(gx), gx.shape[1] + 2 * top, gx.shape[2] + 2 * left, gx.shape[3]))
    for i, j in np.ndindex(w.shape[:2]):
        out[:, i : i + gy.shape[1], j : j + gy.shape[2]] = gy @ w[i, j].T
    return out[:, top : top + gx.shape[1], left : left + gx.shape[2]]


MUTANTS = [
    Mutant("unflipped-kernel", Conv2d, "conv-3x3", on_saved(lambda x, w: (x, w[::-1, ::-1]))),
    Mutant("transposed-kernel", Conv2d, "conv-square-channels", on_saved(lambda x, w: (x, w.swapaxes(2, 3)))),
    Mutant("kernel-axes", Conv2d, "conv-3x3", on_saved(lambda x, w: (x, w.swapaxes(0, 1)))),
    Mutant("flipped-weight", Conv2d, "conv-3x3", replaced(1, lambda self, gy, g: g[::-1, ::-1])),
    Mutant("stride-ignored", Conv2d, "conv-1x1-stride-2", replaced(0, without_stride)),
    Mutant("assigned", Conv2d, "conv-3x3", replaced(0, assigned)),
    Mutant("shifted-padding", Conv2d, "conv-3x3", replaced(0, lambda self, gy, g: np.roll(g, 1, axis=1))),
    Mutant("one-image", Conv2d, "conv-3x3", on_saved(lambda x, w: (first_only(x), w))),
    Mutant("no-bias", Conv2d, "conv-3x3-bias", zero),
    Mutant("bias-of-one-image", Conv2d, "conv-3x3-bias", replaced(2, lambda self, gy, g: gy[0].sum((0, 1)))),
]  # fmt: skip

SIMPLEST = {
    Conv2d: "conv-3x3-bias",
}
