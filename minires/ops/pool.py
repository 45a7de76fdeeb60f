"""Pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..autograd import Function
from ..device import array_module
from ..errors import ArgumentError, DTypeError
from ..kernels import ConvGeometry, avg_pool2d_grad, max_pool2d_grad, sum_axes
from ..kernels import avg_pool2d as avg_pool2d_kernel
from ..kernels import max_pool2d as max_pool2d_kernel
from .checks import Pair, as_tensor, check_float, check_images, check_window, pair


@dataclass(eq=False)
class MaxPool2d(Function):
    """The largest value of each window.

    Shapes    x (N, H, W, C); y (N, OH, OW, C), OH = (H + 2P - KH)//S + 1
    Forward   y = max over the window's places k of x[k]; padding is -inf and never wins
    Backward  gx = sum over the windows that a pixel won of their gy. The first of equals wins
    Saves     the winner's place in each window, one byte an output: a quarter of y, and x can be freed
    Cost      KH*KW comparisons an output
    """

    kernel_size: tuple[int, int]
    geometry: ConvGeometry

    def forward(self, x: Any) -> Any:
        y, index = max_pool2d_kernel(x, self.kernel_size, self.geometry)
        self.shape = x.shape
        self.save(index)
        return y

    def backward(self, gy: Any) -> Any:
        return max_pool2d_grad(gy, self.saved[0], self.shape, self.kernel_size, self.geometry)


@dataclass(eq=False)
class AvgPool2d(Function):
    """The mean of each window.

    Shapes    x (N, H, W, C); y (N, OH, OW, C), OH = (H + 2P - KH)//S + 1
    Forward   y = sum of the window / K, K = KH*KW, or with count_include_pad=False the number of places on the image
    Backward  gx = sum over the windows that hold a pixel of their gy / K
    Saves     nothing but the shape
    Cost      KH*KW additions an output
    """

    kernel_size: tuple[int, int]
    geometry: ConvGeometry
    count_include_pad: bool

    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        self.count = self._count(x)
        return avg_pool2d_kernel(x, self.kernel_size, self.geometry, self.count)

    def backward(self, gy: Any) -> Any:
        return avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, self.count)

    def _count(self, x: Any) -> Any:
        """K as an array that broadcasts from (OH, OW, 1)."""
        xp = array_module(x)
        if self.count_include_pad or not any(self.geometry.padding):
            return xp.full((1, 1, 1), self.kernel_size[0] * self.kernel_size[1], dtype=x.dtype)
        ones = xp.ones((1, *x.shape[1:3], 1), dtype=x.dtype)
        return avg_pool2d_kernel(ones, self.kernel_size, self.geometry, xp.ones((1, 1, 1), dtype=x.dtype))[0]


@dataclass(eq=False)
class GlobalAvgPool2d(Function):
    """The mean of each channel of each image (Lin, Chen and Yan, 2013, section 3.2).

    Shapes    x (N, H, W, C); y (N, 1, 1, C)
    Forward   y = sum of x over H and W / (H*W)
    Backward  gx = gy / (H*W), repeated
    Saves     nothing but the shape
    Cost      one addition an element
    """

    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        return sum_axes(x, (1, 2), True) / x.dtype.type(x.shape[1] * x.shape[2])

    def backward(self, gy: Any) -> Any:
        return array_module(gy).broadcast_to(gy / (self.shape[1] * self.shape[2]), self.shape)


def _window(
    op: str, input: Any, kernel_size: Pair, stride: Pair | None, padding: Pair
) -> tuple[tuple[int, int], ConvGeometry]:
    check_images(op, input)
    kh, kw = pair(op, "kernel_size", kernel_size, 1)
    sh, sw = (kh, kw) if stride is None else pair(op, "stride", stride, 1)
    ph, pw = pair(op, "padding", padding, 0)
    if ph > kh // 2 or pw > kw // 2:
        raise ArgumentError(f"{op}: padding {(ph, pw)} is more than half of the window {(kh, kw)}")
    geometry = ConvGeometry((sh, sw), (ph, ph, pw, pw))
    check_window(op, input, (kh, kw), geometry.padding)
    return (kh, kw), geometry


def max_pool2d(input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Any:
    """The largest value of each window of input (N, H, W, C): (N, OH, OW, C). `stride` is the window's size if None."""
    input = as_tensor(input)
    if input.dtype == bool:
        raise DTypeError("max_pool2d: takes numbers, not booleans; convert with input.to('float32')")
    return MaxPool2d(*_window("max_pool2d", input, kernel_size, stride, padding))(input)


def avg_pool2d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, *, count_include_pad: bool = True
) -> Any:
    """The mean of each window of input (N, H, W, C): (N, OH, OW, C). The stride is the window's size if None."""
    input = as_tensor(input)
    check_float("avg_pool2d", input=input)
    return AvgPool2d(*_window("avg_pool2d", input, kernel_size, stride, padding), count_include_pad)(input)


def adaptive_avg_pool2d(input: Any, output_size: Pair) -> Any:
    """The mean of each channel of input (N, H, W, C): (N, 1, 1, C). The only output_size so far is 1."""
    input = as_tensor(input)
    check_images("adaptive_avg_pool2d", input)
    check_float("adaptive_avg_pool2d", input=input)
    if pair("adaptive_avg_pool2d", "output_size", output_size, 1) != (1, 1):
        raise ArgumentError(
            f"adaptive_avg_pool2d: output_size must be 1, not {output_size!r}; use avg_pool2d with a window"
        )
    return GlobalAvgPool2d()(input)
