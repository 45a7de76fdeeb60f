"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError
from ..ops.checks import Padding, Pair, paddings, pair
from ..tensor import Tensor
from . import init
from .module import Module, Parameter
from .settings import check_positive, other_than, settings, uniform_bias


class _Convolution(Module):
    """What Conv2d and ConvTranspose2d share. `weight_channels` are the channels on either side, groups not counted."""

    output_padding = 0, 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        weight_channels: tuple[int, int],
        kernel_size: Pair,
        stride: Pair,
        padding: Padding,
        dilation: Pair,
        groups: int,
        bias: bool,
        generator: np.random.Generator | None,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        check_positive(layer, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(
                f"{layer}: {groups} groups cannot share {in_channels} input and {out_channels} output channels evenly"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair(layer, "kernel_size", kernel_size, 1)
        self.stride, self.dilation = pair(layer, "stride", stride, 1), pair(layer, "dilation", dilation, 1)
        paddings(layer, padding)
        self.padding: Any = pair(layer, "padding", padding, 0) if isinstance(padding, (int, np.integer)) else padding
        shape = (*self.kernel_size, weight_channels[0] // groups, weight_channels[1])
        self.weight = Parameter(np.empty(shape, np.float32), layout="HWIO")
        init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        self.bias = uniform_bias(out_channels, self.weight, generator) if bias else None

    def extra_repr(self) -> str:
        shown = settings(
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            **other_than((1, 1), dilation=self.dilation),
            **other_than((0, 0), output_padding=self.output_padding),
            **other_than(1, groups=self.groups),
            bias=self.bias is not None,
        )
        return f"{self.in_channels}, {self.out_channels}, {shown}"


class Conv2d(_Convolution):
    """Cross-correlation of images (N, H, W, in_channels): (N, OH, OW, out_channels).

    `padding` is an int, two, ((top, bottom), (left, right)), "valid" or, as in TensorFlow, "same". weight
    (KH, KW, in_channels/groups, out_channels) and bias (out_channels,) start as in PyTorch: uniform within
    1/sqrt(fan_in). `forward(x, add=shortcut, relu=True)` adds and applies ReLU in the same op.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        generator: np.random.Generator | None = None,
    ) -> None:
        channels = in_channels, out_channels
        super().__init__(*channels, channels, kernel_size, stride, padding, dilation, groups, bias, generator)

    def forward(self, x: Any, add: Any = None, relu: bool = False) -> Tensor:
        settings = self.stride, self.padding, self.dilation, self.groups
        return ops.conv2d(x, self.weight, self.bias, *settings, add=add, relu=relu)


class ConvTranspose2d(_Convolution):
    """The adjoint of Conv2d: images (N, H, W, in_channels) to (N, OH, OW, out_channels), larger where stride > 1.

    weight (KH, KW, out_channels/groups, in_channels) is that of the Conv2d whose adjoint this is. It and bias start as
    in PyTorch, whose fan_in counts KH*KW*out_channels/groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
        *,
        generator: np.random.Generator | None = None,
    ) -> None:
        adjoints = out_channels, in_channels
        padding = pair("ConvTranspose2d", "padding", padding, 0)
        super().__init__(
            in_channels, out_channels, adjoints, kernel_size, stride, padding, dilation, groups, bias, generator
        )
        self.output_padding = pair("ConvTranspose2d", "output_padding", output_padding, 0)

    def forward(self, x: Any) -> Tensor:
        return ops.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )
