"""Pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..autograd import Function
from ..device import array_module
from ..errors import ArgumentError, DTypeError, ShapeError
from ..kernels import (
    ConvGeometry,
    adaptive_avg_pool2d_grad,
    adaptive_max_pool2d_grad,
    avg_pool2d_grad,
    max_pool2d_grad,
)
from ..kernels import adaptive_avg_pool2d as adaptive_avg_pool2d_kernel
from ..kernels import adaptive_max_pool2d as adaptive_max_pool2d_kernel
from ..kernels import avg_pool2d as avg_pool2d_kernel
from ..kernels import max_pool2d as max_pool2d_kernel
from .checks import Padding, Pair, as_tensor, check_float, check_images, paddings, pair, window
from .reduce import mean

OutputSize = int | tuple[int | None, int | None] | None


@dataclass(eq=False)
class MaxPool2d(Function):
    """The largest value of each window.

    Shapes    x (N, H, W, C); y (N, OH, OW, C), OH = (H + 2P - (KH-1)*D - 1)//S + 1
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
    Forward   y = sum of the window / K, K the number of its places on the image and the padding that is `counted`
    Backward  gx = sum over the windows that hold a pixel of their gy / K
    Saves     nothing but the shape
    Cost      KH*KW additions an output
    """

    kernel_size: tuple[int, int]
    geometry: ConvGeometry
    counted: tuple[int, int, int, int]  # of the padding: top, bottom, left, right

    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        self.count = self._count(x)
        return avg_pool2d_kernel(x, self.kernel_size, self.geometry, self.count)

    def backward(self, gy: Any) -> Any:
        return avg_pool2d_grad(gy, self.shape, self.kernel_size, self.geometry, self.count)

    def _count(self, x: Any) -> Any:
        """K as an array that broadcasts from (OH, OW, 1)."""
        xp, padding = array_module(x), self.geometry.padding
        dtype = xp.result_type(x.dtype, xp.float32)  # float16 cannot count beyond 2048
        if self.counted == padding:
            return xp.full((1, 1, 1), self.kernel_size[0] * self.kernel_size[1], dtype=dtype)
        top, bottom, left, right = self.counted
        ones = xp.ones((1, x.shape[1] + top + bottom, x.shape[2] + left + right, 1), dtype=dtype)
        rest: Any = tuple(p - c for p, c in zip(padding, self.counted, strict=True))
        return avg_pool2d_kernel(ones, self.kernel_size, replace(self.geometry, padding=rest), ones[0, :1, :1])[0]


@dataclass(eq=False)
class AdaptiveAvgPool2d(Function):
    """The mean of each of OH x OW windows over the image (He et al., "Spatial Pyramid Pooling", 2014, appendix A).

    Shapes    x (N, H, W, C); y (N, OH, OW, C)
    Forward   y[p] = mean of x[k] for floor(p*H/OH) <= k < ceil((p + 1)*H/OH), and so for columns
    Backward  gx[k] = sum of gy[p] / count[p] for floor(k*OH/H) <= p < ceil((k + 1)*OH/H): the same windows, over gy
    Saves     nothing but the shape
    Cost      about H + W additions an output, for one in each row and column
    """

    output_size: tuple[int, int]

    def forward(self, x: Any) -> Any:
        self.shape = x.shape
        return adaptive_avg_pool2d_kernel(x, self.output_size)

    def backward(self, gy: Any) -> Any:
        return adaptive_avg_pool2d_grad(gy, self.shape)


@dataclass(eq=False)
class AdaptiveMaxPool2d(Function):
    """The largest value of each of OH x OW windows that cover the image, AdaptiveAvgPool2d's.

    Shapes    x (N, H, W, C); y (N, OH, OW, C)
    Forward   y = max of the window
    Backward  gx = sum over the windows that a pixel won of their gy. The first of equals wins
    Saves     the winning pixel of each window, four bytes an output
    Cost      about H/OH*W + W/OW comparisons an output's row
    """

    output_size: tuple[int, int]

    def forward(self, x: Any) -> Any:
        y, index = adaptive_max_pool2d_kernel(x, self.output_size)
        self.shape = x.shape
        self.save(index)
        return y

    def backward(self, gy: Any) -> Any:
        return adaptive_max_pool2d_grad(gy, self.saved[0], self.shape)


def _kernel_size(op: str, input: Any, kernel_size: Pair, padding: Padding) -> tuple[int, int]:
    """The window's size, of images, with at most half of it on the padding. Raises ShapeError or ArgumentError."""
    check_images(op, input)
    both, given = pair(op, "kernel_size", kernel_size, 1), paddings(op, padding)
    if given != "same" and any(max(pads) > size // 2 for pads, size in zip(given, both, strict=True)):
        raise ArgumentError(f"{op}: padding {padding!r} is more than half of the window {both}")
    return both


def max_pool2d(
    input: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Any:
    """The largest value of each window of input (N, H, W, C): (N, OH, OW, C). `stride` is the window's size if None.

    `padding` is that of conv2d, "same" included; it never wins. With `ceil_mode`, a rest that the last whole window
    leaves at the bottom or right gets a window of its own.
    """
    input = as_tensor(input)
    if input.dtype == bool:
        raise DTypeError("max_pool2d: takes numbers, not booleans; convert with input.to('float32')")
    size = _kernel_size("max_pool2d", input, kernel_size, padding)
    stride = size if stride is None else stride
    return MaxPool2d(size, window("max_pool2d", input, size, stride, padding, dilation, ceil_mode=ceil_mode))(input)


def avg_pool2d(
    input: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window of input (N, H, W, C): (N, OH, OW, C). The stride is the window's size if None.

    `padding` is that of conv2d. Its zeros count, unless count_include_pad=False or padding="same", where, as in
    TensorFlow, they never do. With `ceil_mode`, a rest at the bottom or right gets a window of its own; what of that
    lies beyond the padding never counts.
    """
    input = as_tensor(input)
    check_float("avg_pool2d", input=input)
    size = _kernel_size("avg_pool2d", input, kernel_size, padding)
    stride = size if stride is None else stride
    rows, columns = paddings("avg_pool2d", padding if count_include_pad and padding != "same" else 0)
    geometry = window("avg_pool2d", input, size, stride, padding, ceil_mode=ceil_mode)
    return AvgPool2d(size, geometry, (*rows, *columns))(input)


def adaptive_avg_pool2d(input: Any, output_size: OutputSize) -> Any:
    """The mean of each of OH x OW windows that cover input (N, H, W, C): (N, OH, OW, C).

    `output_size` is an int or two (OH, OW); None stands for the input's. Of size 1 it is the mean of each channel (Lin,
    Chen and Yan, 2013, section 3.2).
    """
    input = as_tensor(input)
    size = _output_size("adaptive_avg_pool2d", input, output_size)
    check_float("adaptive_avg_pool2d", input=input)
    return mean(input, (1, 2), keepdim=True) if size == (1, 1) else AdaptiveAvgPool2d(size)(input)


def adaptive_max_pool2d(input: Any, output_size: OutputSize) -> Any:
    """The largest value of each of OH x OW windows that cover input (N, H, W, C): (N, OH, OW, C).

    `output_size` is an int or two (OH, OW); None stands for the input's.
    """
    input = as_tensor(input)
    size = _output_size("adaptive_max_pool2d", input, output_size)
    if input.dtype == bool:
        raise DTypeError("adaptive_max_pool2d: takes numbers, not booleans; convert with input.to('float32')")
    return AdaptiveMaxPool2d(size)(input)


def _output_size(op: str, input: Any, size: OutputSize) -> tuple[int, int]:
    check_images(op, input)
    if 0 in input.shape[1:3]:
        raise ShapeError(f"{op}: input {input.shape} has no pixels to pool")
    both = list(size) if isinstance(size, (tuple, list)) else [size, size]
    for axis, (given, inputs) in enumerate(zip(both, input.shape[1:3], strict=False)):
        both[axis] = inputs if given is None else given
    return pair(op, "output_size", both, 1)
