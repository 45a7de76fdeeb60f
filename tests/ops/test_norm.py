"""Batch norm: far from zero, without spread, overflowing; running statistics; fused against unfused; bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import DTypeError, MiniresError, ShapeError
from tests import reference
from tests.helpers import TOLERANCES, assert_f32, assert_f64


def train(x: np.ndarray, gy: np.ndarray | None = None, **settings: Any) -> list[np.ndarray]:
    """Output, gx, ggamma and gbeta of batch norm in training with gamma 1 and beta 0."""
    c = x.shape[-1]
    tensors = [Tensor(a, requires_grad=True) for a in (x, np.ones(c, x.dtype), np.zeros(c, x.dtype))]
    y = ops.batch_norm(tensors[0], None, None, *tensors[1:], training=True, **settings)
    y.backward(np.ones_like(x) if gy is None else gy)
    return [y.data, *(t.grad.data for t in tensors)]


@pytest.mark.parametrize("ratio", [1, 1e3, 1e6])
def test_float32_keeps_its_digits_far_from_zero(rng: np.random.Generator, ratio: float) -> None:
    x = (ratio + rng.standard_normal((16, 8, 8, 4))).astype(np.float32)
    gy = rng.standard_normal(x.shape).astype(np.float32)
    y, gx, *_ = train(x, gy)
    ones, zeros = np.ones(4), np.zeros(4)
    exact, exact_gy = x.astype(np.float64), gy.astype(np.float64)
    assert_f32(y, reference.batch_norm(exact, ones, zeros), TOLERANCES["norm"])
    assert_f32(gx, reference.batch_norm_grad(exact_gy, exact, ones), TOLERANCES["norm"])


@pytest.mark.parametrize("value", [0, 1, 1e8, -3.7e20])
def test_constant_channel_gives_exact_zeros(value: float) -> None:
    x = np.full((4, 3, 2, 2), value, dtype=np.float32)
    y, gx, ggamma, gbeta = train(x)
    for zeros in (y, gx, ggamma):
        np.testing.assert_array_equal(zeros, np.zeros_like(zeros))
    np.testing.assert_array_equal(gbeta, np.float32([24, 24]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_inputs_give_no_nan(rng: np.random.Generator, dtype: Any) -> None:
    x = (1e30 * rng.standard_normal((8, 3, 2, 2))).astype(dtype)
    assert all(np.isfinite(a).all() for a in train(x))


def test_two_values_a_channel(rng: np.random.Generator) -> None:
    x, gy = rng.standard_normal((2, 1, 1, 6)), rng.standard_normal((2, 1, 1, 6))
    assert_f64(train(x, gy)[1], reference.batch_norm_grad(gy, x, np.ones(6)), TOLERANCES["norm"])


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 3)])
def test_one_value_a_channel_cannot_train(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"Expected more than 1 value per channel when training.*larger batch"):
        train(np.ones(shape))


@pytest.mark.parametrize("relu", [False, True])
def test_running_statistics_move_by_momentum(rng: np.random.Generator, relu: bool) -> None:
    x, mean, var = (rng.random(s).astype(np.float32) for s in ((4, 3, 2, 5), 5, 5))
    running = Tensor(mean.copy()), Tensor(var.copy())
    y = ops.batch_norm(Tensor(x, requires_grad=True), *running, training=True, momentum=0.3, relu=relu)
    biased = reference.moments(x.astype(np.float64))
    want = 0.7 * mean + 0.3 * biased[0], 0.7 * var + 0.3 * biased[1] * 24 / 23
    for got, w in zip(running, want, strict=True):
        assert not got.requires_grad
        np.testing.assert_allclose(got.data, w, rtol=1e-6)
    y.backward(np.ones_like(x))  # the statistics' update touched nothing that backward needs


def test_empty_batch_and_evaluation_leave_running_statistics() -> None:
    running = Tensor(np.full(3, 0.5)), Tensor(np.full(3, 2.0))
    ops.batch_norm(np.zeros((0, 2, 2, 3)), *running, training=True)
    ops.batch_norm(np.ones((1, 2, 2, 3)), *running)
    assert [t.tolist() for t in running] == [[0.5] * 3, [2.0] * 3]


def test_evaluation_takes_one_value_a_channel() -> None:
    y = ops.batch_norm(np.full((1, 2), 3.0), np.array([1.0, 3.0]), np.array([4.0, 1.0]), eps=0)
    assert y.tolist() == [[1, 0]]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fused_is_unfused(rng: np.random.Generator, dtype: Any, residual: bool) -> None:
    shapes = ((4, 5, 3, 6), (6,), (6,), *([(4, 5, 3, 6)] if residual else []))
    arrays = [rng.standard_normal(s).astype(dtype) for s in shapes]
    gy = rng.standard_normal(shapes[0]).astype(dtype)

    def fused(x: Any, gamma: Any, beta: Any, z: Any = None) -> Any:
        return ops.batch_norm(x, None, None, gamma, beta, True, add=z, relu=True)

    def unfused(x: Any, gamma: Any, beta: Any, z: Any = None) -> Any:
        y = ops.batch_norm(x, None, None, gamma, beta, True)
        return ops.relu(y if z is None else y + z)

    results = []
    for op in (fused, unfused):
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        y = op(*tensors)
        y.backward(gy)
        results.append([y.data, *(t.grad.data for t in tensors)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def ones(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.ones(shape, dtype=dtype))


X, V = ones(2, 4, 5, 3), ones(3)
REFUSED: dict[str, tuple[Any, type[MiniresError], str]] = {
    "nchw": (
        lambda: ops.batch_norm(ones(2, 3, 4, 5), V, V),
        ShapeError,
        r"batch_norm: input \(2, 3, 4, 5\) has 5 channels.*looks like \(N, C, H, W\).*x\.permute\(0, 2, 3, 1\)",
    ),
    "weight": (
        lambda: ops.batch_norm(X, V, V, ones(4)),
        ShapeError,
        r"batch_norm: input \(2, 4, 5, 3\) has 3 channels in its last axis, but weight has shape \(4,\); it looks",
    ),
    "bias": (lambda: ops.batch_norm(X, V, V, V, ones(7)), ShapeError, r"but bias has shape \(7,\)$"),
    "running": (lambda: ops.batch_norm(X, V, ones(7)), ShapeError, r"but running_var has shape \(7,\)$"),
    "no-running": (lambda: ops.batch_norm(X, None, None), ShapeError, r"batch_norm: evaluation needs .*training=True"),
    "add": (
        lambda: ops.batch_norm(X, V, V, add=ones(2, 4, 5, 1)),
        ShapeError,
        r"batch_norm: add has shape \(2, 4, 5, 1\), but input \(2, 4, 5, 3\); project the shortcut first",
    ),
    "integers": (lambda: ops.batch_norm(ones(2, 3, dtype=np.int64), V, V), DTypeError, r"batch_norm: input must be"),
    "mixed": (
        lambda: ops.batch_norm(ones(2, 3, dtype=np.float64), V, V),
        DTypeError,
        r"batch_norm: one dtype expected",
    ),
    "add-dtype": (
        lambda: ops.batch_norm(X, V, V, add=ones(2, 4, 5, 3, dtype=np.float64)),
        DTypeError,
        r"add is float64",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(call: Any, error: type[MiniresError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
