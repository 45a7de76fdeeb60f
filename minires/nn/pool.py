"""Pooling layers."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..ops.checks import Padding, Pair
from ..ops.pool import OutputSize
from ..tensor import Tensor
from .module import Module
from .settings import other_than, settings


class MaxPool2d(Module):
    """The largest value of each window of (N, H, W, C). `padding`, also "same", never wins."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        dilation: Pair = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x: Any) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        others = other_than(1, dilation=self.dilation) | other_than(False, ceil_mode=self.ceil_mode)
        return settings(kernel_size=self.kernel_size, stride=self.stride, padding=self.padding, **others)


class AvgPool2d(Module):
    """The mean of each window of (N, H, W, C), zeros on the padding counted in unless count_include_pad=False.

    With padding="same" they never count.
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    def forward(self, x: Any) -> Tensor:
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        others = other_than(False, ceil_mode=self.ceil_mode)
        others |= other_than(True, count_include_pad=self.count_include_pad)
        return settings(kernel_size=self.kernel_size, stride=self.stride, padding=self.padding, **others)


class _AdaptivePool2d(Module):
    def __init__(self, output_size: OutputSize) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return settings(output_size=self.output_size)


class AdaptiveAvgPool2d(_AdaptivePool2d):
    """The mean of each of OH x OW windows that cover the image: (N, H, W, C) to (N, OH, OW, C). None keeps a size."""

    def forward(self, x: Any) -> Tensor:
        return ops.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveMaxPool2d(_AdaptivePool2d):
    """The largest value of each of AdaptiveAvgPool2d's windows: (N, H, W, C) to (N, OH, OW, C)."""

    def forward(self, x: Any) -> Tensor:
        return ops.adaptive_max_pool2d(x, self.output_size)
