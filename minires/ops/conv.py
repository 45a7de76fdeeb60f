"""Convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..autograd import Function
from ..errors import ShapeError
from ..kernels import ConvGeometry, conv2d_grad_input, conv2d_grad_weight, sum_axes
from ..kernels import conv2d as conv2d_kernel
from .checks import Pair, as_tensor, check_float, check_images, check_window, pair


@dataclass(eq=False)
class Conv2d(Function):
    """Cross-correlation by im2col and a matrix product (Chellapilla, Puri and Simard, 2006, section 2).

    Shapes    x (N, H, W, C); w (KH, KW, C, O); b (O,) or None; y (N, OH, OW, O), OH = (H + 2P - KH)//S + 1
              x2, w2, y2, gy2: x, w, y, gy as matrices, their leading axes merged
    Forward   cols = im2col(x) (N*OH*OW, KH*KW*C);  y2 = cols @ w2 + b
    Backward  gw2 = cols^T @ gy2;  gx = col2im(gy2 @ w2^T), col2im being the adjoint of im2col;  gb = sum of gy2's rows
    Saves     w if gx is needed, x if gw is. cols is rebuilt in backward: it is KH*KW/S^2 times as large as x.
    Cost      2*N*O*C*KH*KW*OH*OW flops forward, twice that backward
    """

    geometry: ConvGeometry

    def forward(self, x: Any, w: Any, b: Any) -> Any:
        self.save(x if self.needs[1] else None, w if self.needs[0] else None)
        self.shapes = x.shape, w.shape
        y = conv2d_kernel(x, w, self.geometry)
        if b is not None:
            y += b
        return y

    def backward(self, gy: Any) -> Any:
        x, w = self.saved
        gx = conv2d_grad_input(gy, w, self.shapes[0], self.geometry) if self.needs[0] else None
        gw = conv2d_grad_weight(gy, x, self.shapes[1], self.geometry) if self.needs[1] else None
        gb = sum_axes(gy, (0, 1, 2)) if self.needs[2] else None
        return gx, gw, gb


def conv2d(input: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair = 0) -> Any:
    """Cross-correlate input (N, H, W, C) with weight (KH, KW, C, O): (N, OH, OW, O), OH = (H + 2P - KH)//S + 1.

    Raises ShapeError, DTypeError or ArgumentError, naming what does not fit.
    """
    input, weight = as_tensor(input), as_tensor(weight)
    bias = None if bias is None else as_tensor(bias)
    (sh, sw), (ph, pw) = pair("conv2d", "stride", stride, 1), pair("conv2d", "padding", padding, 0)
    geometry = ConvGeometry((sh, sw), (ph, ph, pw, pw))
    if weight.ndim != 4:
        raise ShapeError(f"conv2d: weight must be (KH, KW, C, O), but has shape {weight.shape}")
    kh, kw, channels, outputs = weight.shape
    check_images("conv2d", input, channels, f"weight {weight.shape} = (KH, KW, C, O)")
    check_float("conv2d", input=input, weight=weight, bias=bias)
    check_window("conv2d", input, (kh, kw), geometry.padding)
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(f"conv2d: bias must be ({outputs},) for weight {weight.shape}, but has shape {bias.shape}")
    return Conv2d(geometry)(input, weight, bias)
