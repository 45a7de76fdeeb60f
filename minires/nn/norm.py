"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError
from ..ops.checks import integers
from ..tensor import Tensor
from .module import Buffer, Module, Parameter
from .settings import check_positive, settings


class LayerNorm(Module):
    """Normalise each example over its last axes, of shape normalized_shape; see ops.layer_norm."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        shape = integers("LayerNorm", (normalized_shape,))
        for size in shape or (0,):
            check_positive("LayerNorm", normalized_shape=size)
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self.weight = Parameter(np.ones(shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Tensor:
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        values = settings(eps=self.eps, elementwise_affine=self.elementwise_affine, bias=self.bias is not None)
        return f"{self.normalized_shape}, {values}"


class GroupNorm(Module):
    """Normalise num_groups groups of channels of each example (N, ..., num_channels); see ops.group_norm."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        check_positive("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise ArgumentError(f"GroupNorm: num_channels {num_channels} must be a multiple of num_groups {num_groups}")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = Parameter(np.ones(num_channels, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, np.float32)) if affine else None

    def forward(self, x: Any) -> Tensor:
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, {settings(eps=self.eps, affine=self.weight is not None)}"


class BatchNorm2d(Module):
    """Normalise each channel of (N, H, W, num_features); see ops.batch_norm.

    `forward(x, add=shortcut, relu=True)` adds and applies ReLU in the same op: the end of a residual block. With
    momentum=None the running statistics are the plain means over all batches so far.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__()
        check_positive("BatchNorm2d", num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32))
        self.bias = Parameter(np.zeros(num_features, np.float32))
        self.running_mean = Buffer(np.zeros(num_features, np.float32))
        self.running_var = Buffer(np.ones(num_features, np.float32))
        self.num_batches_tracked = Buffer(np.zeros((), np.int64))

    def forward(self, x: Any, add: Any = None, relu: bool = False) -> Tensor:
        momentum = self.momentum
        if momentum is None:  # only here must a count on a GPU be waited for
            momentum = 1 / (self.num_batches_tracked.item() + 1)
        y = ops.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training, momentum, self.eps, add=add, relu=relu,
        )  # fmt: skip
        if self.training:
            self.num_batches_tracked += 1
        return y

    def extra_repr(self) -> str:
        return f"{self.num_features}, {settings(eps=self.eps, momentum=self.momentum)}"
