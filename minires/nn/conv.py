"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..ops.checks import Pair, pair
from ..tensor import Tensor
from . import init
from .module import Module, Parameter
from .settings import check_positive, settings, uniform_bias


class Conv2d(Module):
    """Cross-correlation of images (N, H, W, in_channels): (N, OH, OW, out_channels).

    weight (KH, KW, in_channels, out_channels) and bias (out_channels,) start as in PyTorch: uniform within
    1/sqrt(fan_in).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        *,
        bias: bool = True,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("Conv2d", in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.padding = pair("Conv2d", "stride", stride, 1), pair("Conv2d", "padding", padding, 0)
        shape = (*self.kernel_size, in_channels, out_channels)
        self.weight = Parameter(np.empty(shape, np.float32), layout="HWIO")
        init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        self.bias = uniform_bias(out_channels, self.weight, generator) if bias else None

    def forward(self, x: Any) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        shown = settings(
            kernel_size=self.kernel_size, stride=self.stride, padding=self.padding, bias=self.bias is not None
        )
        return f"{self.in_channels}, {self.out_channels}, {shown}"
