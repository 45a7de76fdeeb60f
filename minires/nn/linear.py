"""The linear layer, and none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError
from ..ops.checks import Pair, pair
from ..tensor import Tensor
from . import init
from .module import Module, Parameter
from .settings import check_positive, other_than, settings, uniform_bias


class Linear(Module):
    """x @ weight^T + bias over the last axis: (..., in_features) to (..., out_features).

    weight (out_features, in_features) and bias (out_features,) start as in PyTorch: uniform within 1/sqrt(in_features).
    `image_size` (H, W) says that the inputs are a flattened map (H, W, C), which is (C, H, W) in PyTorch's nets: state
    dicts in PyTorch's layout have the weight's columns in that order.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        image_size: Pair | None = None,
        generator: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("Linear", in_features=in_features, out_features=out_features)
        size = None if image_size is None else pair("Linear", "image_size", image_size, 1)
        if size and in_features % (size[0] * size[1]):
            raise ArgumentError(f"Linear: in_features={in_features} are no whole number of channels of a map of {size}")
        self.in_features, self.out_features, self.image_size = in_features, out_features, size
        self.weight = Parameter(np.empty((out_features, in_features), np.float32), layout=size)
        init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=generator)
        self.bias = uniform_bias(out_features, self.weight, generator) if bias else None

    def forward(self, x: Any) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        size = other_than(None, image_size=self.image_size)
        return settings(
            in_features=self.in_features, out_features=self.out_features, **size, bias=self.bias is not None
        )


class Identity(Module):
    """Returns its input: a place in a model with nothing in it. Arguments are taken and ignored, as in PyTorch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        return x
