"""One op at one geometry, in three versions: minires', the loops' and PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires import Tensor
from tests.helpers import TOLERANCES, Tolerance

Arrays = list[np.ndarray]
NCHW, OIHW = (0, 3, 1, 2), (3, 2, 0, 1)  # PyTorch's axes of (N, H, W, C) images and (KH, KW, I, O) weights


@dataclass(frozen=True)
class Case:
    """Floating inputs are differentiated; integer inputs (labels) are passed on as they are."""

    name: str  # family-op-geometry
    op: Callable[..., Any]  # over Tensors
    naive: Callable[..., np.ndarray]  # over arrays
    torch: Callable[..., Any]  # over PyTorch's tensors, in its layout, after the torch module
    make: Callable[[np.random.Generator], Sequence[np.ndarray]]
    value: str = "exact"  # a key of TOLERANCES, for the result
    gradient: str = "exact"  # and for the gradients: one key, or one for each
    axes: tuple[tuple[int, ...] | None, ...] = ()  # for each input: its axes in PyTorch's order
    out: tuple[int, ...] | None = None  # the same for the result
    batched: tuple[int, ...] = (0,)  # the inputs whose first axis is the batch; none if it cannot be empty

    def __str__(self) -> str:
        return self.name

    @property
    def tolerances(self) -> list[Tolerance]:
        """Those of the result and of each gradient."""
        keys = self.gradient.split()
        return [TOLERANCES[key] for key in (self.value, *keys, *keys[-1:] * 3)]

    def inputs(self, dtype: Any = np.float64) -> Arrays:
        """The same inputs on every call; floats of type `dtype`."""
        arrays = self.make(np.random.default_rng(1))
        return [a.astype(dtype) if a.dtype.kind == "f" else a for a in (np.asarray(a) for a in arrays)]

    def on_floats(self, arrays: Arrays) -> tuple[Callable[..., Any], Arrays]:
        """The op with its integer inputs bound, and its floating inputs."""
        floats = [a for a in arrays if a.dtype.kind == "f"]

        def bound(*tensors: Any) -> Any:
            rest = iter(tensors)
            return self.op(*(next(rest) if a.dtype.kind == "f" else a for a in arrays))

        return bound, floats

    def run(self, arrays: Arrays, gy: np.ndarray | None = None) -> Arrays:
        """The result, and the gradient of each floating input for the result's gradient `gy`, or one drawn for it."""
        fn, floats = self.on_floats(arrays)
        tensors = [Tensor(a, requires_grad=True) for a in floats]
        y = fn(*tensors)
        y.backward(gradient_for(y.data) if gy is None else gy)
        return [y.data, *(t.grad.data for t in tensors)]


def gradient_for(y: np.ndarray) -> np.ndarray:
    """A gradient for the result y, the same on every call, whose values float32 holds exactly."""
    return np.random.default_rng(2).standard_normal(y.shape).astype(np.float32).astype(y.dtype)


def beside(constant: np.ndarray, x: Tensor) -> Tensor:
    """An array that the op takes as it is, in x's type and where x is."""
    return Tensor(constant, x.dtype, x.device)


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], Arrays]:
    """Standard normal inputs."""
    return lambda rng: [rng.standard_normal(shape) for shape in shapes]


def positive(*shapes: tuple[int, ...], low: float = 0.5) -> Callable[[np.random.Generator], Arrays]:
    """Inputs in [low, 2], for ops with poles."""
    return lambda rng: [rng.uniform(low, 2, shape) for shape in shapes]


def away(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], Arrays]:
    """Inputs of both signs, at least 0.05 from 0 and from each other: no kink and no tie is near."""

    def draw(rng: np.random.Generator) -> Arrays:
        count = sum(int(np.prod(shape)) for shape in shapes)
        values = iter(rng.permutation(np.arange(count) - count // 2) * 0.1 + 0.05 + rng.uniform(-0.02, 0.02, count))
        return [np.array([next(values) for _ in range(int(np.prod(shape)))]).reshape(shape) for shape in shapes]

    return draw
