"""Initial values, written into a tensor in place. Random ones come from `generator`, or minires.manual_seed's."""

from __future__ import annotations

import math

import numpy as np

from ..autograd import no_grad
from ..device import device_of, to_device
from ..errors import ArgumentError, ShapeError
from ..random import given_or_default
from ..tensor import Tensor


def fan_in_and_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs feed one output of a weight, and how many outputs one input feeds.

    Weights are (O, I) for linear layers, (KH, KW, I, O) for convolutions, where I = C / groups. As in PyTorch, fan out
    counts all O, of which an input feeds only a group's. Raises ShapeError for other shapes.
    """
    _check_weight(tensor, "fan in and out")
    if tensor.ndim == 2:
        return tensor.shape[1], tensor.shape[0]
    kh, kw, inputs, outputs = tensor.shape
    return kh * kw * inputs, kh * kw * outputs


def _check_weight(tensor: Tensor, what: str, ndims: tuple[int, ...] = (2, 4)) -> None:
    if tensor.ndim not in ndims:
        shapes = " and ".join({2: "(O, I)", 4: "(KH, KW, I, O)"}[n] for n in ndims)
        remedy = "; fill biases and the weights of norms with zeros_, ones_ or uniform_" if tensor.ndim == 1 else ""
        raise ShapeError(f"init: {what} are defined for {shapes} weights, not for shape {tensor.shape}{remedy}")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity; `param` is leaky ReLU's slope, 0.01 if not given.

    PyTorch's table: of tanh and SELU the numbers are found by experiment.
    """
    slope = 0.01 if param is None else param
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    gains |= {"leaky_relu": math.sqrt(2 / (1 + slope**2))}
    gains |= {f"conv{transposed}{n}d": 1.0 for transposed in ("", "_transpose") for n in (1, 2, 3)}
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


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Normal of standard deviation gain * sqrt(2 / (fan in + fan out)) (Glorot and Bengio, 2010, section 4.2.1)."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Uniform of the same standard deviation as xavier_normal_: its bound is sqrt(3) times that."""
    bound = math.sqrt(3) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def _xavier_std(tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2 / max(sum(fan_in_and_out(tensor)), 1))


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: np.random.Generator | None = None
) -> Tensor:
    """Normal draws."""
    if not std >= 0:
        raise ArgumentError(f"init: normal_ needs std of at least 0, not {std}")
    return _fill(tensor, given_or_default(generator).normal(mean, std, tensor.shape))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """Uniform draws from [a, b)."""
    if not (a <= b and math.isfinite(b - a)):
        raise ArgumentError(f"init: uniform_ needs finite a <= b, not a={a}, b={b}")
    return _fill(tensor, given_or_default(generator).uniform(a, b, tensor.shape))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: np.random.Generator | None = None,
) -> Tensor:
    """Normal draws within [a, b]. `a` and `b` are values, no multiples of `std`.

    Uniform draws x are kept with probability exp((peak^2 - x^2) / 2), in units of `std` from the mean: that works in
    the middle and far out alike, where nearly all normal draws would have to be drawn again.
    """
    if not (std > 0 and a <= b):
        raise ArgumentError(f"init: trunc_normal_ needs std above 0 and a <= b, not std={std}, a={a}, b={b}")
    rng = given_or_default(generator)
    low, high = (a - mean) / std, (b - mean) / std
    peak = min(max(0.0, low), high)
    far = math.hypot(peak, 9)  # where the density is exp(-40) of that at the peak
    values, missing = np.empty(tensor.numel()), np.arange(tensor.numel())
    while missing.size:
        x = rng.uniform(max(low, -far), min(high, far), missing.size)
        kept = rng.standard_exponential(missing.size) >= (x * x - peak * peak) / 2
        values[missing[kept]] = x[kept]
        missing = missing[~kept]
    return _fill(tensor, np.clip(mean + std * values, a, b).reshape(tensor.shape))


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: np.random.Generator | None = None) -> Tensor:
    """A random matrix with orthonormal rows, or columns if those are fewer, times `gain` (Saxe et al., 2014).

    One row an output: of a convolution's weight that is all that feeds the output. The signs of R's diagonal make Q
    uniform over all such matrices (Mezzadri, 2007).
    """
    _check_weight(tensor, "orthogonal matrices")
    outputs = tensor.shape[0 if tensor.ndim == 2 else 3]
    others = tensor.numel() // max(outputs, 1)
    tall = (max(outputs, others), min(outputs, others))
    q, r = np.linalg.qr(given_or_default(generator).standard_normal(tall))
    q = q * np.where(np.diag(r) < 0, -gain, gain)
    rows = q if outputs >= others else q.T  # (O, I), or (O, KH*KW*I)
    return _fill(tensor, (rows if tensor.ndim == 2 else rows.T).reshape(tensor.shape))


def eye_(tensor: Tensor) -> Tensor:
    """The identity, as a weight (O, I)."""
    _check_weight(tensor, "identities", ndims=(2,))
    return _fill(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """The identity, as the weight (KH, KW, I, O) of a convolution: in each group, output d is input d while there are.

    A 1 stands in the kernel's middle, so that padding of half the kernel keeps images as they are.
    """
    _check_weight(tensor, "identities", ndims=(4,))
    kh, kw, inputs, outputs = tensor.shape
    if groups < 1 or outputs % groups:
        raise ArgumentError(f"init: dirac_ of {outputs} outputs in {groups} groups; groups must divide the outputs")
    values = np.zeros(tensor.shape)
    values[kh // 2, kw // 2] = np.tile(np.eye(inputs, outputs // groups), groups)
    return _fill(tensor, values)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One value everywhere."""
    return _fill(tensor, np.full(tensor.shape, val))


def zeros_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    return constant_(tensor, 1.0)


def _fill(tensor: Tensor, values: np.ndarray) -> Tensor:
    with no_grad():
        tensor[...] = to_device(values.astype(tensor.dtype), device_of(tensor.data))
    return tensor
