"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..tensor import Tensor
from .module import Buffer, Module, Parameter
from .settings import check_positive, settings


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
        tracked = self.num_batches_tracked.item() + self.training
        momentum = 1 / max(1, tracked) if self.momentum is None else self.momentum
        y = ops.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training, momentum, self.eps, add=add, relu=relu,
        )  # fmt: skip
        self.num_batches_tracked[...] = tracked
        return y

    def extra_repr(self) -> str:
        return f"{self.num_features}, {settings(eps=self.eps, momentum=self.momentum)}"
