"""The linear layer, and none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..tensor import Tensor
from . import init
from .module import Module, Parameter
from .settings import check_positive, settings, uniform_bias


class Linear(Module):
    """x @ weight^T + bias over the last axis: (..., in_features) to (..., out_features).

    weight (out_features, in_features) and bias (out_features,) start as in PyTorch: uniform within 1/sqrt(in_features).
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, generator: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        check_positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(np.empty((out_features, in_features), np.float32))
        init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        self.bias = uniform_bias(out_features, self.weight, generator) if bias else None

    def forward(self, x: Any) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return settings(in_features=self.in_features, out_features=self.out_features, bias=self.bias is not None)


class Identity(Module):
    """Returns its input: a place in a model with nothing in it. Arguments are taken and ignored, as in PyTorch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        return x
