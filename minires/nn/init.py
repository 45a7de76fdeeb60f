"""Initial values, written into a tensor in place. Random ones come from `generator`, or minires.manual_seed's."""

from __future__ import annotations

import math

import numpy as np

from ..autograd import no_grad
from ..device import device_of, to_device
from ..errors import ArgumentError, ShapeError
from ..random import default_generator
from ..tensor import Tensor


def fan_in_and_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs feed one output of a weight, and how many outputs one input feeds.

    Weights are (O, I) for linear layers, (KH, KW, I, O) for convolutions. Raises ShapeError for other shapes.
    """
    if tensor.ndim == 2:
        return tensor.shape[1], tensor.shape[0]
    if tensor.ndim == 4:
        kh, kw, inputs, outputs = tensor.shape
        return kh * kw * inputs, kh * kw * outputs
    raise ShapeError(
        f"init: fan in and out are defined for (O, I) and (KH, KW, I, O) weights, not for shape {tensor.shape}"
    )


def calculate_gain(nonlinearity: str, param: float = 0.01) -> float:
    """The factor that keeps the variance through a nonlinearity; `param` is leaky ReLU's slope."""
    gains = {"linear": 1.0, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + param * param))}
    if nonlinearity not in gains:
        raise ArgumentError(f"init: unknown nonlinearity {nonlinearity!r}; there are {', '.join(gains)}")
    return gains[nonlinearity]


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"init: mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan = fan_in_and_out(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Normal of standard deviation gain / sqrt(fan) (He et al., "Delving Deep into Rectifiers", 2015, section 2.2)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Uniform of the same standard deviation as kaiming_normal_: its bound is sqrt(3) times that."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: np.random.Generator | None = None
) -> Tensor:
    """Normal draws."""
    return _fill(tensor, (generator or default_generator()).normal(mean, std, tensor.shape))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Uniform draws from [a, b)."""
    return _fill(tensor, (generator or default_generator()).uniform(a, b, tensor.shape))


def constant_(tensor: Tensor, value: float) -> Tensor:
    """One value everywhere."""
    return _fill(tensor, np.full(tensor.shape, value))


def zeros_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 1.0)


def _fill(tensor: Tensor, values: np.ndarray) -> Tensor:
    with no_grad():
        tensor[...] = to_device(values.astype(tensor.dtype), device_of(tensor.data))
    return tensor
