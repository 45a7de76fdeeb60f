"""The layers: parameters, and a call of the op."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, RangeError
from ..ops.checks import Pair, pair
from ..tensor import Tensor
from . import init
from .module import Buffer, Module, Parameter


def _settings(**values: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _positive(layer: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ArgumentError(f"{layer}: {name} must be an int of at least 1, not {size!r}")


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
        _positive("Conv2d", in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.padding = pair("Conv2d", "stride", stride, 1), pair("Conv2d", "padding", padding, 0)
        shape = (*self.kernel_size, in_channels, out_channels)
        self.weight = Parameter(np.empty(shape, np.float32), layout="HWIO")
        init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        self.bias = _uniform_bias(out_channels, self.weight, generator) if bias else None

    def forward(self, x: Any) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        settings = _settings(
            kernel_size=self.kernel_size, stride=self.stride, padding=self.padding, bias=self.bias is not None
        )
        return f"{self.in_channels}, {self.out_channels}, {settings}"


class Linear(Module):
    """x @ weight^T + bias over the last axis: (..., in_features) to (..., out_features).

    weight (out_features, in_features) and bias (out_features,) start as in PyTorch: uniform within 1/sqrt(in_features).
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, generator: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        _positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        self.bias = _uniform_bias(out_features, self.weight, generator) if bias else None

    def forward(self, x: Any) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return _settings(in_features=self.in_features, out_features=self.out_features, bias=self.bias is not None)


def _uniform_bias(size: int, weight: Tensor, generator: np.random.Generator | None) -> Parameter:
    bound = 1 / math.sqrt(init.fan_in_and_out(weight)[0])
    bias = Parameter(np.empty(size, np.float32))
    init.uniform_(bias, -bound, bound, generator)
    return bias


class BatchNorm2d(Module):
    """Normalise each channel of (N, H, W, num_features); see ops.batch_norm.

    `forward(x, add=shortcut, relu=True)` adds and applies ReLU in the same op: the end of a residual block. With
    momentum=None the running statistics are the plain means over all batches so far.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__()
        _positive("BatchNorm2d", num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.running_mean = Buffer(np.zeros(num_features, np.float32))
        self.running_var = Buffer(np.ones(num_features, np.float32))
        self.num_batches_tracked = Buffer(np.zeros((), np.int64))

    def forward(self, x: Any, add: Any = None, relu: bool = False) -> Tensor:
        tracked = self.num_batches_tracked.item() + self.training
        momentum = 1 / max(1, tracked) if self.momentum is None else self.momentum
        y = ops.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training, momentum, self.eps, add=add, relu=relu,
        )  # fmt: skip
        self.num_batches_tracked[...] = tracked
        return y

    def extra_repr(self) -> str:
        return f"{self.num_features}, {_settings(eps=self.eps, momentum=self.momentum)}"


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Tensor:
        return ops.relu(x)


class _Pool2d(Module):
    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def extra_repr(self) -> str:
        return _settings(kernel_size=self.kernel_size, stride=self.stride, padding=self.padding)


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
        return _settings(output_size=self.output_size)


class Flatten(Module):
    """Make the dimensions from start_dim to end_dim one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        return ops.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return _settings(start_dim=self.start_dim, end_dim=self.end_dim)


class _AlongDim(Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return _settings(dim=self.dim)


class Softmax(_AlongDim):
    """exp(x), scaled to sum 1 along `dim`."""

    def forward(self, x: Any) -> Tensor:
        return ops.softmax(x, self.dim)


class LogSoftmax(_AlongDim):
    """The logarithm of the softmax along `dim`."""

    def forward(self, x: Any) -> Tensor:
        return ops.log_softmax(x, self.dim)


class _Loss(Module):
    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def extra_repr(self) -> str:
        return _settings(reduction=self.reduction)


class NLLLoss(_Loss):
    """Minus the log-probability (N, C) at the target (N,)."""

    def forward(self, input: Any, target: Any) -> Tensor:
        return ops.nll_loss(input, target, reduction=self.reduction)


class CrossEntropyLoss(_Loss):
    """Softmax cross-entropy of logits (N, C) with class numbers (N,)."""

    def forward(self, input: Any, target: Any) -> Tensor:
        return ops.cross_entropy(input, target, reduction=self.reduction)


class Sequential(Module):
    """Modules called one after the other. Takes modules, or one mapping of names to modules."""

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = dict(modules[0])
        else:
            named = {str(i): m for i, m in enumerate(modules)}  # type: ignore[misc]
        for name, module in named.items():
            if not isinstance(module, Module):
                raise ArgumentError(f"Sequential: {name!r} is a {type(module).__name__}, not a Module")
            self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x

    def __iter__(self) -> Iterator[Module]:
        return iter(self.children())

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: int | slice) -> Module:
        items = list(self.named_children())
        if isinstance(index, slice):
            return Sequential(dict(items[index]))
        if not -len(items) <= index < len(items):
            raise RangeError(f"Sequential: index {index} is out of range for {len(items)} modules")
        return items[index][1]

    def append(self, module: Module) -> Sequential:
        """Add a module at the end, under its number."""
        self.add_module(str(len(self)), module)
        return self
