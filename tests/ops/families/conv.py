"""Convolutions: cases, planted mistakes, and a case for each Function that shows any factor."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import numpy as np

from minires import ops
from minires.kernels import ConvGeometry, conv2d, conv2d_grad_input, conv2d_grad_weight
from minires.ops.conv import Conv2d, ConvTranspose2d
from tests import reference
from tests.ops.case import NCHW, OIHW, Arrays, Case, normal
from tests.ops.mutant import Mutant, first_only, instead, last_ones_lost, on_gradient, on_saved, replaced, zero


def both(*settings: Any) -> list[Any]:
    return [(v, v) if isinstance(v, int) else v for v in settings]


def convolution(
    name: str,
    x: Any,
    w: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = False,
    pads: Any = None,
) -> Case:
    """`pads`, ((top, bottom), (left, right)), is what a padding that PyTorch has not means at this geometry."""
    steps, around, spread = both(stride, padding if pads is None else pads, dilation)

    def torchs(t: Any, x: Any, w: Any, b: Any = None) -> Any:
        if pads is not None:
            x = t.nn.functional.pad(x, (*pads[1], *pads[0]))
        return t.nn.functional.conv2d(x, w, b, stride, padding if pads is None else 0, dilation, groups)

    return Case(
        f"conv-{name}", lambda x, w, b=None: ops.conv2d(x, w, b, stride, padding, dilation, groups),
        lambda x, w, b=None: reference.conv2d(x, w, b, steps, around, spread, groups), torchs,
        normal(x, w, *([(w[3],)] if bias else [])), "gemm", "gemm", axes=(NCHW, OIHW), out=NCHW,
    )  # fmt: skip


def fused(name: str, x: Any, w: Any, padding: int = 1, add: bool = True, relu: bool = True) -> Case:
    """With what follows: a bias, an addition, ReLU; drawn anew until no sum is near ReLU's kink."""
    y = *np.add(x[:3], (0, 2 * padding - w[0] + 1, 2 * padding - w[1] + 1)).tolist(), w[3]

    def before(x: np.ndarray, w: np.ndarray, b: np.ndarray, z: Any = None) -> np.ndarray:
        sums = reference.conv2d(x, w, b, (1, 1), (padding, padding), (1, 1), 1)
        return sums if z is None else reference.elementwise(operator.add, sums, z)

    def torchs(t: Any, x: Any, w: Any, b: Any, z: Any = None) -> Any:
        sums = t.nn.functional.conv2d(x, w, b, 1, padding)
        sums = sums if z is None else sums + z
        return t.relu(sums) if relu else sums

    def make(rng: np.random.Generator) -> Arrays:
        while True:
            arrays = [rng.standard_normal(shape) for shape in (x, w, (w[3],), *([y] if add else []))]
            if not relu or np.min(np.abs(before(*arrays))) > 0.01:
                return arrays

    return Case(
        f"conv-{name}", lambda x, w, b, z=None: ops.conv2d(x, w, b, 1, padding, add=z, relu=relu),
        lambda *arrays: reference.elementwise(lambda v: max(v, 0.0) if relu else v, before(*arrays)),
        torchs, make, "gemm", "gemm", axes=(NCHW, OIHW, None, NCHW), out=NCHW, batched=(0, 3) if add else (0,),
    )  # fmt: skip


def transposed(
    name: str,
    x: Any,
    w: Any,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    bias: bool = False,
) -> Case:
    settings = stride, padding, output_padding, groups, dilation
    steps, around, more, spread = both(stride, padding, output_padding, dilation)
    return Case(
        f"conv-transposed-{name}", lambda x, w, b=None: ops.conv_transpose2d(x, w, b, *settings),
        lambda x, w, b=None: reference.conv_transpose2d(x, w, b, steps, around, more, groups, spread),
        lambda t, x, w, b=None: t.nn.functional.conv_transpose2d(x, w, b, *settings),
        normal(x, w, *([(w[2] * groups,)] if bias else [])), "gemm", "gemm", axes=(NCHW, OIHW), out=NCHW,
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
    convolution("valid", (2, 5, 4, 2), (3, 2, 2, 2), 1, "valid", pads=((0, 0), (0, 0))),
    convolution("explicit-pads", (2, 4, 5, 2), (3, 2, 2, 2), (2, 1), ((0, 2), (1, 0)), pads=((0, 2), (1, 0))),
    convolution("same", (2, 5, 4, 2), (3, 3, 2, 2), 1, "same", pads=((1, 1), (1, 1))),
    convolution("same-stride-2", (2, 4, 5, 2), (3, 3, 2, 2), 2, "same", pads=((0, 1), (1, 1))),
    convolution("same-stride-3", (2, 7, 5, 2), (3, 3, 2, 2), 3, "same", pads=((1, 1), (0, 1))),
    convolution("same-even-kernel", (2, 5, 4, 2), (2, 4, 2, 2), 1, "same", pads=((0, 1), (1, 2))),
    convolution("same-even-kernel-stride-2", (2, 5, 4, 2), (4, 4, 2, 2), 2, "same", pads=((1, 2), (1, 1))),
    convolution("same-stride-over-kernel", (2, 4, 8, 2), (2, 2, 2, 2), 3, "same", pads=((0, 1), (0, 0))),
    convolution("same-1x1-stride-2", (2, 5, 4, 2), (1, 1, 2, 3), 2, "same", pads=((0, 0), (0, 0))),
    convolution("same-dilated-stride-2", (2, 4, 5, 2), (3, 3, 2, 2), 2, "same", 2, pads=((1, 2), (2, 2))),
    convolution("dilation-2", (2, 7, 6, 2), (3, 2, 2, 2), 1, 1, 2),
    convolution("square-dilation", (2, 5, 4, 2), (3, 3, 2, 2), 1, (2, 1), (2, 1)),
    convolution("dilation-pair-stride", (2, 7, 6, 2), (2, 3, 2, 2), (2, 1), (1, 2), (3, 2), bias=True),
    convolution("dilation-reaches-padding-only", (2, 2, 3, 2), (2, 2, 2, 2), 1, (2, 1), (5, 2)),
    convolution("groups-2", (2, 5, 4, 4), (3, 3, 2, 6), 1, 1, 1, 2, bias=True),
    convolution("groups-3-dilated-strided", (1, 5, 6, 6), (2, 3, 2, 6), (2, 1), 1, (1, 2), 3),
    convolution("groups-1x1", (2, 3, 4, 4), (1, 1, 2, 4), 1, 0, 1, 2),
    convolution("groups-same-stride-2", (2, 4, 5, 4), (3, 3, 2, 4), 2, "same", 1, 2, pads=((0, 1), (1, 1))),
    convolution("depthwise", (2, 5, 4, 3), (3, 3, 1, 3), 1, 1, 1, 3, bias=True),
    convolution("depthwise-strided-dilated", (2, 7, 6, 2), (3, 2, 1, 2), (2, 1), (2, 1), (2, 3), 2),
    convolution("depthwise-leaves-rest", (2, 6, 8, 2), (2, 3, 1, 2), 3, 0, 1, 2),
    convolution("depthwise-same-stride-2", (2, 4, 5, 3), (3, 3, 1, 3), 2, "same", 1, 3, pads=((0, 1), (1, 1))),
    convolution("depthwise-multiplier", (2, 4, 5, 3), (3, 3, 1, 6), 1, 1, 1, 3, bias=True),
    fused("add", (2, 3, 4, 2), (3, 3, 2, 3), relu=False),
    fused("relu", (2, 3, 4, 2), (3, 3, 2, 3), add=False),
    fused("add-relu", (2, 3, 4, 2), (3, 3, 2, 3)),
    fused("1x1-add-relu", (2, 3, 2, 3), (1, 1, 3, 2), padding=0),
    transposed("3x3", (2, 4, 3, 2), (3, 3, 3, 2)),
    transposed("square-channels", (2, 3, 4, 3), (3, 3, 3, 3), 1, 1),
    transposed("stride-2", (2, 3, 4, 2), (3, 3, 2, 2), 2, 1),
    transposed("output-padding", (2, 3, 4, 2), (3, 3, 2, 2), 2, 1, 1, bias=True),
    transposed("output-padding-pair", (2, 3, 2, 2), (2, 3, 2, 2), (2, 3), (0, 1), (0, 2)),
    transposed("even-kernel-stride-2", (2, 3, 4, 2), (4, 4, 2, 2), 2, 1),
    transposed("stride-over-kernel", (2, 3, 2, 2), (1, 2, 3, 2), (3, 4)),
    transposed("stride-over-kernel-output-padding", (2, 3, 3, 2), (2, 2, 2, 2), 3, 0, 2),
    transposed("wide-padding", (2, 4, 5, 2), (3, 3, 3, 2), 1, 2),
    transposed("1x1", (2, 3, 4, 3), (1, 1, 4, 3), bias=True),
    transposed("dilation", (2, 4, 3, 2), (3, 2, 2, 2), 1, 1, 0, 1, (2, 3)),
    transposed("output-padding-over-stride", (2, 3, 4, 2), (2, 2, 2, 2), (1, 2), 1, (2, 2), 1, 3),
    transposed("groups-2", (2, 3, 4, 4), (3, 3, 3, 4), 2, 1, 1, 2, bias=True),
    transposed("depthwise", (2, 3, 4, 3), (3, 3, 1, 3), 2, 1, 0, 3, bias=True),
    transposed("depthwise-multiplier", (2, 3, 4, 3), (3, 2, 2, 3), 1, 1, 0, 3),
    transposed("all", (2, 3, 4, 4), (3, 2, 2, 4), (2, 3), (1, 0), (1, 2), 2, (2, 1), bias=True),
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


def with_geometry(**changes: Any) -> Any:
    """The gradients of another geometry with as many windows."""

    def backward(self: Any, gy: Any) -> Any:
        (x, w), geometry = self.saved, replace(self.geometry, **changes)
        if isinstance(self, ConvTranspose2d):
            return conv2d(gy, w, geometry), conv2d_grad_weight(x, gy, w.shape, geometry), None
        return conv2d_grad_input(gy, w, x.shape, geometry), conv2d_grad_weight(gy, x, w.shape, geometry), None, None

    return backward


def interleaved(w: Any, groups: int) -> Any:
    """The output channels in another order: one of each group in turn, not group by group."""
    order = np.arange(w.shape[3]).reshape(groups, -1).T.ravel()
    return w[..., order]


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
    Mutant("dilation-ignored", Conv2d, "conv-dilation-2", instead(
        with_geometry(dilation=(1, 1), padding=(0, 0, 0, 1)))),
    Mutant("dilation-axes", Conv2d, "conv-square-dilation", instead(
        with_geometry(dilation=(1, 2), padding=(1, 1, 2, 2)))),
    Mutant("same-on-the-wrong-side", Conv2d, "conv-same-stride-2", instead(with_geometry(padding=(1, 0, 1, 1)))),
    Mutant("groups-mixed", Conv2d, "conv-groups-2", on_saved(lambda x, w: (x, interleaved(w, 2)))),
    Mutant("groups-exchanged", Conv2d, "conv-groups-2", on_saved(lambda x, w: (np.roll(x, 2, axis=3), w))),
    Mutant("depthwise-neighbour", Conv2d, "conv-depthwise", on_saved(lambda x, w: (x, np.roll(w, 1, axis=3)))),
    Mutant("multiplier-order", Conv2d, "conv-depthwise-multiplier", on_saved(lambda x, w: (x, interleaved(w, 3)))),
    Mutant("no-addition", Conv2d, "conv-add-relu", replaced(3, lambda self, gy, g: np.zeros_like(g))),
    Mutant("addition-past-relu", Conv2d, "conv-add-relu", replaced(3, lambda self, gy, g: gy)),
    Mutant("relu-ignored", Conv2d, "conv-relu", on_saved(lambda x, w, y: (x, w, np.ones_like(y)))),
    Mutant("bias-past-relu", Conv2d, "conv-relu", replaced(2, lambda self, gy, g: gy.sum((0, 1, 2)))),
    Mutant("unflipped-kernel", ConvTranspose2d, "conv-transposed-3x3", on_saved(lambda x, w: (x, w[::-1, ::-1]))),
    Mutant("transposed-kernel", ConvTranspose2d, "conv-transposed-square-channels", on_saved(
        lambda x, w: (x, w.swapaxes(2, 3)))),
    Mutant("output-padding-on-top", ConvTranspose2d, "conv-transposed-output-padding", on_gradient(
        lambda gy: np.roll(gy, -1, axis=1))),
    Mutant("output-padding-lost", ConvTranspose2d, "conv-transposed-output-padding", on_gradient(last_ones_lost)),
    Mutant("zero-rows-kept", ConvTranspose2d, "conv-transposed-output-padding-over-stride", replaced(
        0, lambda self, gy, g: conv2d(gy, self.saved[1], self.geometry)[:, -g.shape[1] :, -g.shape[2] :])),
    Mutant("stride-ignored", ConvTranspose2d, "conv-transposed-stride-over-kernel", replaced(
        0, lambda self, gy, g: conv2d(gy, self.saved[1], replace(self.geometry, stride=(1, 1)))[:, :3, :2])),
    Mutant("dilation-ignored", ConvTranspose2d, "conv-transposed-dilation", instead(
        with_geometry(dilation=(1, 1), padding=(0, 0, 0, 0)))),
    Mutant("groups-mixed", ConvTranspose2d, "conv-transposed-groups-2", on_saved(
        lambda x, w: (x, interleaved(w, 2)))),
    Mutant("one-image", ConvTranspose2d, "conv-transposed-stride-2", on_saved(lambda x, w: (first_only(x), w))),
    Mutant("no-bias", ConvTranspose2d, "conv-transposed-output-padding", zero),
    Mutant("bias-misses-a-column", ConvTranspose2d, "conv-transposed-1x1", replaced(
        2, lambda self, gy, g: gy[:, :-1].sum((0, 1, 2)))),
]  # fmt: skip

SIMPLEST = {
    Conv2d: "conv-3x3-bias",
    ConvTranspose2d: "conv-transposed-output-padding",
}
