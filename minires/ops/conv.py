"""Convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, is_grad_enabled, wrap
from ..device import array_module
from ..errors import ArgumentError, ShapeError
from ..kernels import ConvGeometry, conv2d_grad_input, conv2d_grad_weight, fixed, quiet, relu_grad, sum_axes
from ..kernels import conv2d as conv2d_kernel
from ..modes import is_anomaly_enabled
from .checks import Padding, Pair, as_tensor, check_float, check_images, pair, window

REMEMBERED = 1024  # kinds of arguments that were checked; then the check forgets, and begins again
_checked: dict[Any, ConvGeometry] = {}


@dataclass(eq=False)
class Conv2d(Function):
    """Cross-correlation by im2col and a matrix product (Chellapilla, Puri and Simard, 2006, section 2); then + z, ReLU.

    Shapes    x (N, H, W, C); w (KH, KW, C/G, O); b (O,) or None; y (N, OH, OW, O), OH = (H + 2P - (KH-1)*D - 1)//S + 1
              z (N, OH, OW, O) or None
              x2, w2, y2, g2: x, w, y, g as matrices, their leading axes merged; with G > 1 groups, one for each
    Forward   cols = im2col(x) (N*OH*OW, KH*KW*C/G);  y2 = cols @ w2 + b + z2;  with relu, y = max(that, 0)
    Backward  g = gy, or with relu gy where y > 0, else 0;  gz = g
              gw2 = cols^T @ g2;  gx = col2im(g2 @ w2^T), col2im being the adjoint of im2col;  gb = sum of g2's rows
    Saves     w if gx is needed, x if gw is; y with relu. cols is rebuilt in backward: it is KH*KW/S^2 times as large
              as x.
    Cost      2*N*O*C/G*KH*KW*OH*OW flops forward, twice that backward
    """

    geometry: ConvGeometry
    relu: bool = False

    def forward(self, x: Any, w: Any, b: Any, z: Any = None) -> Any:
        y = conv2d_kernel(x, w, self.geometry, b, z, self.relu)
        saved = x if self.needs[1] else None, w if self.needs[0] else None
        self.save(*saved, y) if self.relu else self.save(*saved)
        self.shapes = x.shape, w.shape
        return y

    def backward(self, gy: Any) -> Any:
        x, w, *y = self.saved
        g = relu_grad(gy, *y) if y else gy
        gx = conv2d_grad_input(g, w, self.shapes[0], self.geometry) if self.needs[0] else None
        gw = conv2d_grad_weight(g, x, self.shapes[1], self.geometry) if self.needs[1] else None
        gb = sum_axes(g, (0, 1, 2)) if self.needs[2] else None
        return gx, gw, gb, g


@dataclass(eq=False)
class ConvTranspose2d(Function):
    """The adjoint of Conv2d: each pixel spreads over a window (Dumoulin and Visin, 2016, chapter 4).

    Shapes    x (N, H, W, I); w (KH, KW, O/G, I), of the convolution from O channels to I; b (O,) or None
              y (N, OH, OW, O), OH = (H - 1)*S - 2P + (KH - 1)*D + 1 + output padding
    Forward   y = conv2d's gx for gy = x: <conv2d(u), x> = <u, y> for every u of y's shape; y += b
    Backward  the adjoint of the adjoint: gx = conv2d(gy). Both sides above are linear in w: gw is conv2d's gw for the
              input gy and the gradient x. gb = sum of gy's pixels
    Saves     w if gx is needed, x if gw is
    Cost      2*N*O*I/G*KH*KW*H*W flops forward, twice that backward
    """

    output_size: tuple[int, int]
    geometry: ConvGeometry

    def forward(self, x: Any, w: Any, b: Any) -> Any:
        self.shapes = x.shape, w.shape
        x = _grown(x, self.geometry.output_size(self.output_size, w.shape[:2]))
        self.save(x if self.needs[1] else None, w if self.needs[0] else None)
        shape = len(x), *self.output_size, w.shape[2] * self.geometry.groups
        return conv2d_grad_input(x, w, shape, self.geometry, b)

    def backward(self, gy: Any) -> Any:
        x, w = self.saved
        (_, rows, columns, _), w_shape = self.shapes
        gx = conv2d_kernel(gy, w, self.geometry)[:, :rows, :columns] if self.needs[0] else None
        gw = conv2d_grad_weight(x, gy, w_shape, self.geometry) if self.needs[1] else None
        gb = sum_axes(gy, (0, 1, 2)) if self.needs[2] else None
        return gx, gw, gb


def _grown(x: Any, size: tuple[int, int]) -> Any:
    """x with rows of zeros at the bottom and columns at the right: an output padding of S is one more row of x."""
    n, h, w, c = x.shape
    if (h, w) == size:
        return x
    grown = array_module(x).zeros((n, *size, c), dtype=x.dtype)
    grown[:, :h, :w] = x
    return grown


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    add: Any = None,
    relu: bool = False,
) -> Any:
    """Cross-correlate input (N, H, W, C) with weight (KH, KW, C/G, O): (N, OH, OW, O); + bias, + `add`, ReLU if asked.

    OH = (H + pads - (KH - 1)*D - 1)//S + 1. `padding` is an int, two (rows, columns), "valid" (none),
    ((top, bottom), (left, right)), or "same": OH = ceil(H / S), the odd row or column at the bottom or right, as in
    TensorFlow. Each of `groups` takes C/G channels to O/G. Raises ShapeError, DTypeError or ArgumentError, naming what
    does not fit.
    """
    tensors = [None if t is None else as_tensor(t) for t in (input, weight, bias, add)]
    x, w, b, z = [None if t is None else t.data for t in tensors]
    geometry, weight, recorded = _geometry(x, w, b, z, stride, padding, dilation, groups), tensors[1], is_grad_enabled()
    if (recorded and weight.requires_grad) or is_anomaly_enabled():
        return Conv2d(geometry, relu)(*tensors)
    # Evaluation: what a kernel makes of the weights may be kept. Writes behind the engine's back do not count: under
    # detect_anomaly nothing is kept.
    with fixed(w, (weight.version, weight.version.count)):
        if recorded:
            return Conv2d(geometry, relu)(*tensors)
        with quiet():
            return wrap(conv2d_kernel(x, w, geometry, b, z, relu))


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Any:
    """The adjoint of conv2d with this weight (KH, KW, O/G, I) on input (N, H, W, I): (N, OH, OW, O).

    OH = (H - 1)*S - 2P + (KH - 1)*D + 1 + output_padding, which chooses among the sizes that conv2d takes to H; those
    rows are at the bottom. Raises ShapeError, DTypeError or ArgumentError, naming what does not fit.
    """
    op = "conv_transpose2d"
    input, weight = as_tensor(input), as_tensor(weight)
    bias = None if bias is None else as_tensor(bias)
    _check(op, input, weight, bias, groups, transposed=True)
    (sh, sw), (dh, dw) = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1)
    if isinstance(padding, str):
        raise ArgumentError(
            f"{op}: padding must be one int or two, not {padding!r}, which may stand for several output sizes; "
            "choose one with padding and output_padding"
        )
    (ph, pw), (eh, ew) = pair(op, "padding", padding, 0), pair(op, "output_padding", output_padding, 0)
    if eh >= max(sh, dh) or ew >= max(sw, dw):
        raise ArgumentError(
            f"{op}: output_padding {(eh, ew)} must be less than stride {(sh, sw)} or dilation {(dh, dw)}; "
            "pad the output instead"
        )
    geometry = ConvGeometry((sh, sw), (ph, ph, pw, pw), (dh, dw), int(groups))
    high, wide = geometry.extent(weight.shape[:2])
    oh = (input.shape[1] - 1) * sh - 2 * ph + high + eh
    ow = (input.shape[2] - 1) * sw - 2 * pw + wide + ew
    if min(oh, ow, *input.shape[1:3]) < 1:
        raise ShapeError(
            f"{op}: input {input.shape} under a window of {high}x{wide}, stride {(sh, sw)} and padding {(ph, pw)} "
            f"would give an output of {oh}x{ow}; pad less or use a larger image"
        )
    return ConvTranspose2d((oh, ow), geometry)(input, weight, bias)


def _geometry(input: Any, weight: Any, bias: Any, add: Any, *settings: Any) -> ConvGeometry:
    """conv2d's geometry, once its arguments are found to fit together; the same kind of arguments is checked once."""
    kinds = [None if a is None else (a.shape, a.dtype) for a in (input, weight, bias, add)]
    key = (*kinds, repr(settings))  # 1 == 1.0 == True, but only the first is a stride
    geometry = _checked.get(key)
    if geometry is None:
        stride, padding, dilation, groups = settings
        _check("conv2d", input, weight, bias, groups)
        geometry = window("conv2d", input, weight.shape[:2], stride, padding, dilation, int(groups))
        shape = len(input), *geometry.output_size(input.shape[1:3], weight.shape[:2]), weight.shape[3]
        if add is not None:
            check_float("conv2d", input=input, add=add)
            if add.shape != shape:
                raise ShapeError(
                    f"conv2d: add has shape {add.shape}, but the output {shape}; project the shortcut first"
                )
        if len(_checked) >= REMEMBERED:
            _checked.clear()
        _checked[key] = geometry
    return geometry


def _check(op: str, input: Any, weight: Any, bias: Any, groups: int, transposed: bool = False) -> None:
    """The shapes and types of what is convolved fit together. Raises ShapeError, DTypeError or ArgumentError."""
    if not isinstance(groups, (int, np.integer)) or groups < 1:
        raise ArgumentError(f"{op}: groups must be an int of at least 1, not {groups!r}")
    per_group, all_groups = "OI" if transposed else "CO"
    axes = f"(KH, KW, {per_group}{'/groups' if groups > 1 else ''}, {all_groups})"
    if weight.ndim != 4 or 0 in (*weight.shape[:2], weight.shape[3]):
        raise ShapeError(
            f"{op}: weight must be {axes}, KH, KW and {all_groups} at least 1, but has shape {weight.shape}"
        )
    channels, outputs = weight.shape[2] * groups, weight.shape[3]
    if outputs % groups:
        raise ShapeError(
            f"{op}: {groups} groups cannot share evenly the {outputs} channels of weight {weight.shape} = {axes}"
        )
    if transposed:
        channels, outputs = outputs, channels
    check_images(op, input, channels, f"weight {weight.shape} = {axes}" + (f", groups={groups}," if groups > 1 else ""))
    check_float(op, input=input, weight=weight, bias=bias)
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(f"{op}: bias must be ({outputs},) for weight {weight.shape}, but has shape {bias.shape}")
