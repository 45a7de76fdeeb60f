"""What layers share: the checks and the text of their settings, and PyTorch's first biases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..tensor import Tensor
from . import init
from .module import Parameter


def settings(**values: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def other_than(default: Any, **values: Any) -> dict[str, Any]:
    """Those of the values that are not the default."""
    return {name: value for name, value in values.items() if value != default}


def check_positive(layer: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ArgumentError(f"{layer}: {name} must be an int of at least 1, not {size!r}")


def uniform_bias(size: int, weight: Tensor, generator: np.random.Generator | None) -> Parameter:
    bound = 1 / math.sqrt(init.fan_in_and_out(weight)[0])
    bias = Parameter(np.empty(size, np.float32))
    init.uniform_(bias, -bound, bound, generator)
    return bias
