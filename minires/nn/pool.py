"""Pooling layers."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..ops.checks import Pair
from ..tensor import Tensor
from .module import Module
from .settings import settings


class _Pool2d(Module):
    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def extra_repr(self) -> str:
        return settings(kernel_size=self.kernel_size, stride=self.stride, padding=self.padding)


class MaxPool2d(_Pool2d):
    """The largest value of each window of (N, H, W, C)."""

    def forward(self, x: Any) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool2d):
    """The mean of each window of (N, H, W, C), padding counted in unless count_include_pad=False."""

    def __init__(
        self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, *, count_include_pad: bool = True
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.count_include_pad = count_include_pad

    def forward(self, x: Any) -> Tensor:
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding, count_include_pad=self.count_include_pad)


class AdaptiveAvgPool2d(Module):
    """The mean of each channel: (N, H, W, C) to (N, 1, 1, C). The only output_size so far is 1."""

    def __init__(self, output_size: Pair) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return ops.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return settings(output_size=self.output_size)
