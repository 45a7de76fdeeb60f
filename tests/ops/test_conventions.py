"""Where an op has no derivative, or no number: what minires takes there, and that PyTorch takes the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from minires import ops
from tests.helpers import value_and_gradients

NAN, INF = float("nan"), float("inf")


class At(NamedTuple):
    """An op at some points: its result and its gradients there, for an output gradient of ones."""

    ours: Any
    torch: Any  # over the torch module and its tensors
    points: list[list[float]]  # for each input
    value: list[float]
    gradients: list[list[float]]


CONVENTIONS = {
    "relu is flat at 0": At(ops.relu, lambda t, x: t.relu(x), [[-1, 0, -0.0, 1]], [0, 0, 0, 1], [[0, 0, 0, 1]]),
    "relu passes nan on": At(ops.relu, lambda t, x: t.relu(x), [[NAN, INF, -INF]], [NAN, INF, 0], [[1, 1, 0]]),
    "leaky_relu has its slope at 0": At(
        lambda x: ops.leaky_relu(x, 0.5), lambda t, x: t.nn.functional.leaky_relu(x, 0.5),
        [[-2, 0, -0.0, 2]], [-1, 0, 0, 2], [[0.5, 0.5, 0.5, 1]],
    ),
    "abs is flat at 0": At(
        ops.abs, lambda t, x: t.abs(x), [[0, -0.0, -2, INF, -INF]], [0, 0, 2, INF, INF], [[0, 0, -1, 1, -1]]
    ),
    "maximum shares ties": At(
        ops.maximum, lambda t, a, b: t.maximum(a, b), [[1, 2, 3], [3, 2, 1]], [3, 2, 3], [[0, 0.5, 1], [1, 0.5, 0]]
    ),
    "minimum shares ties": At(
        ops.minimum, lambda t, a, b: t.minimum(a, b), [[1, 2, 3], [3, 2, 1]], [1, 2, 1], [[1, 0.5, 0], [0, 0.5, 1]]
    ),
    "maximum passes nan on": At(
        ops.maximum, lambda t, a, b: t.maximum(a, b), [[NAN, 1], [1, NAN]], [NAN, NAN], [[1, 1], [1, 1]]
    ),
    "minimum passes nan on": At(
        ops.minimum, lambda t, a, b: t.minimum(a, b), [[NAN, 1], [1, NAN]], [NAN, NAN], [[1, 1], [1, 1]]
    ),
    "clip has slope 1 at its bounds": At(
        lambda x: ops.clip(x, -1, 1), lambda t, x: t.clip(x, -1, 1),
        [[-2, -1, 0, 1, 2, INF, NAN]], [-1, -1, 0, 1, 1, 1, NAN], [[0, 1, 1, 1, 0, 0, 0]],
    ),
    "clip with crossed bounds is the upper one": At(
        lambda x: ops.clip(x, 2, -2), lambda t, x: t.clip(x, 2, -2), [[-3, 0, 3]], [-2, -2, -2], [[0, 0, 0]]
    ),
    "where picks, and multiplies nothing": At(
        lambda a, b: ops.where(np.array([True, False]), a, b), lambda t, a, b: t.where(t.tensor([True, False]), a, b),
        [[1, NAN], [INF, 2]], [1, 2], [[1, 0], [0, 1]],
    ),
    "x^0 is flat": At(lambda x: x**0, lambda t, x: x**0, [[0, 2]], [1, 1], [[0, 0]]),
    "0^b is flat in b where b is not negative": At(
        ops.pow, lambda t, a, b: t.pow(a, b), [[0, 0, 0], [2, 0, 0.5]], [0, 1, 0], [[0, 0, INF], [0, 0, 0]]
    ),
    "0^b is infinitely steep in b where b is negative": At(
        ops.pow, lambda t, a, b: t.pow(a, b), [[0], [-1]], [INF], [[-INF], [-INF]]
    ),
    "a quotient does not square its divisor": At(
        ops.div, lambda t, a, b: t.div(a, b), [[2.0**-600], [2.0**-600]], [1], [[2.0**600], [-(2.0**600)]]
    ),
    "sqrt is infinitely steep at 0": At(ops.sqrt, lambda t, x: t.sqrt(x), [[0, 4]], [0, 2], [[INF, 0.25]]),
    "sigmoid saturates": At(
        ops.sigmoid, lambda t, x: t.sigmoid(x), [[-INF, -1e300, 1e300, INF]], [0, 0, 1, 1], [[0, 0, 0, 0]]
    ),
    "tanh saturates": At(
        ops.tanh, lambda t, x: t.tanh(x), [[-INF, -1e300, 1e300, INF]], [-1, -1, 1, 1], [[0, 0, 0, 0]]
    ),
    "gelu is 0 or x far away": At(
        ops.gelu, lambda t, x: t.nn.functional.gelu(x), [[-1e300, 1e300, INF]], [0, 1e300, INF], [[0, 1, NAN]]
    ),
    "silu is 0 or x far away": At(
        ops.silu, lambda t, x: t.nn.functional.silu(x), [[-1e300, 1e300, INF]], [0, 1e300, INF], [[0, 1, NAN]]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVENTIONS)
def test_convention(name: str) -> None:
    at = CONVENTIONS[name]
    got = value_and_gradients(at.ours, *(np.array(p, np.float64) for p in at.points))
    for g, want in zip(got, [at.value, *at.gradients], strict=True):
        np.testing.assert_array_equal(g, want)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_convention_is_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    at = CONVENTIONS[name]
    inputs = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in at.points]
    y = at.torch(torch, *inputs)
    y.backward(torch.ones_like(y))
    for g, want in zip([y.detach(), *(x.grad for x in inputs)], [at.value, *at.gradients], strict=True):
        np.testing.assert_array_equal(g.numpy(), want)
