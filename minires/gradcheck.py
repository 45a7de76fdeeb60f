"""Compare a gradient with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autograd import no_grad
from .errors import DTypeError, GraphError
from .tensor import Tensor

EPS = 1e-4  # in float64 the error of a central difference is least near here: 4e-11 at 1e-4, 3e-9 at 1e-6
TOLERANCE = 1e-7


def gradcheck(
    fn: Callable[..., Any],
    arrays: Sequence[Any],
    *,
    eps: float = EPS,
    tolerance: float = TOLERANCE,
    directions: int = 20,
    seed: int = 0,
) -> float:
    """Check backward of `fn` at float64 `arrays`, and return the largest relative error, at most `tolerance`.

    For a random u of the output's shape, backward gives the gradient of <u, fn(arrays)>. Along `directions` random unit
    directions v of each input its product with v must be (<u, fn(x + eps v)> - <u, fn(x - eps v)>) / (2 eps).
    Keep inputs at least 1e-2 away from kinks (relu at 0, ties of a maximum). Raises GraphError with the worst input.
    """
    arrays = [np.asarray(a) for a in arrays]
    for index, a in enumerate(arrays):
        if a.dtype != np.float64:
            raise DTypeError(f"gradcheck: input {index} is {a.dtype}; finite differences need float64")
    rng = np.random.default_rng(seed)
    tensors = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    y = fn(*tensors)
    u = rng.standard_normal(y.shape)
    y.backward(u)

    def projected(index: int, moved: np.ndarray) -> float:
        with no_grad():
            out = fn(*(Tensor(moved if i == index else a) for i, a in enumerate(arrays)))
        return float(np.sum(out.data * u))

    worst, place = 0.0, ""
    for index, (a, t) in enumerate(zip(arrays, tensors, strict=True)):
        gradient = np.zeros_like(a) if t.grad is None else t.grad.data
        for _ in range(directions if a.size else 0):
            v = rng.standard_normal(a.shape)
            v /= np.sqrt(np.sum(v * v))
            analytic = float(np.sum(gradient * v))
            numeric = (projected(index, a + eps * v) - projected(index, a - eps * v)) / (2 * eps)
            # A floor on the scale: along a direction in which nothing changes, both are rounding noise.
            error = abs(analytic - numeric) / max(abs(analytic), abs(numeric), 1e-2)
            if not error <= worst:  # NaN is worst of all
                worst, place = (
                    error,
                    f"input {index} of shape {a.shape}: {analytic:.9g} by backward, {numeric:.9g} by differences",
                )
    if not worst <= tolerance:
        raise GraphError(f"gradcheck: relative error {worst:.2e} exceeds {tolerance:.0e} at {place}")
    return worst
