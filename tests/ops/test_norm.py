"""Norms far from zero, without spread, overflowing, in float16; running statistics; what equals what; bad input."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, MiniresError, ShapeError
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


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 1, 1, 1), (1, 3)])
def test_one_value_a_channel_cannot_train(shape: tuple[int, ...]) -> None:
    size = re.escape(str(shape))
    words = rf"Expected more than 1 value per channel when training, got input size {size}; use a larger batch"
    with pytest.raises(ShapeError, match=words):
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


def by_example(op: Any, x: np.ndarray, gy: np.ndarray, *settings: Any) -> list[np.ndarray]:
    """Output and gx of layer or group norm without weights."""
    t = Tensor(x, requires_grad=True)
    y = op(t, *settings)
    y.backward(gy)
    return [y.data, t.grad.data]


@pytest.mark.parametrize("ratio", [0, 1, 1e3, 1e6])
@pytest.mark.parametrize("groups", [None, 2])
def test_each_example_keeps_its_digits_far_from_zero(
    rng: np.random.Generator, ratio: float, groups: int | None
) -> None:
    """Against batch norm's loops, for which each group of an example is a column."""
    x = (ratio + rng.standard_normal((6, 40, 8))).astype(np.float32)
    gy = rng.standard_normal(x.shape).astype(np.float32)
    if groups is None:
        got = by_example(ops.layer_norm, x, gy, (40, 8))
    else:
        got = by_example(ops.group_norm, x, gy, groups)

    def columns(a: np.ndarray) -> np.ndarray:
        return (
            a.astype(np.float64).reshape(6, 40, groups or 1, -1).transpose(1, 3, 0, 2).reshape(320 // (groups or 1), -1)
        )

    one = np.ones(6 * (groups or 1))
    assert_f32(columns(got[0]).astype(np.float32), reference.batch_norm(columns(x), one, 0 * one), TOLERANCES["norm"])
    want = reference.batch_norm_grad(columns(gy), columns(x), one)
    assert_f32(columns(got[1]).astype(np.float32), want, TOLERANCES["norm"])


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        *((v, d) for v in (0, 1, 0.1, 3.3, 6e4) for d in (np.float16, np.float32, np.float64)),
        *((v, d) for v in (1e8, -3.7e20) for d in (np.float32, np.float64)),
    ],
)
def test_a_constant_example_gives_exactly_its_bias(value: float, dtype: Any) -> None:
    x, bias = np.full((3, 7, 6), value, dtype), np.arange(6, dtype=dtype)
    for y in (ops.layer_norm(x, 6, None, bias), ops.group_norm(x, 2, None, bias)):
        np.testing.assert_array_equal(y.data, np.broadcast_to(bias, x.shape))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_examples_give_no_nan(rng: np.random.Generator, dtype: Any) -> None:
    x = (1e30 * rng.standard_normal((4, 3, 6))).astype(dtype)
    for op, setting in ((ops.layer_norm, 6), (ops.group_norm, 3)):
        assert all(np.isfinite(a).all() for a in by_example(op, x, np.ones_like(x), setting))


def test_an_example_does_not_see_the_others(rng: np.random.Generator) -> None:
    x, gy = rng.standard_normal((2, 5, 4, 6)).astype(np.float32)
    for op, setting in ((ops.layer_norm, (4, 6)), (ops.group_norm, 2)):
        whole = by_example(op, x, gy, setting)
        for i in range(5):
            for a, b in zip(by_example(op, x[i : i + 1], gy[i : i + 1], setting), whole, strict=True):
                np.testing.assert_array_equal(a[0], b[i])


def test_norms_that_coincide(rng: np.random.Generator) -> None:
    """One group: layer norm of all but the batch. A group for each channel: batch norm of each image alone."""
    x, gy = rng.standard_normal((2, 3, 4, 5, 6))
    pairs = [(by_example(ops.group_norm, x, gy, 1), by_example(ops.layer_norm, x, gy, (4, 5, 6)))]
    alone = [train(x[i : i + 1], gy[i : i + 1])[:2] for i in range(3)]
    pairs.append((by_example(ops.group_norm, x, gy, 6), [np.concatenate(a) for a in zip(*alone, strict=True)]))
    for got, want in pairs:
        for a, b in zip(got, want, strict=True):
            assert_f64(a, b, TOLERANCES["norm"])


def test_float16_statistics_of_a_million_values(rng: np.random.Generator) -> None:
    """A float16 sum overflows at 65,504, and stops growing at 2,048 where it adds ones."""
    x = (3 + rng.standard_normal((1000, 1000, 1))).astype(np.float16)
    running = Tensor(np.zeros(1, np.float32)), Tensor(np.zeros(1, np.float32))
    y = ops.batch_norm(Tensor(x), *running, training=True, momentum=1.0)
    exact = x.astype(np.float64)
    assert running[0].item() == pytest.approx(exact.mean(), rel=1e-6)
    assert running[1].item() == pytest.approx(exact.var() * 1e6 / (1e6 - 1), rel=1e-6)
    assert y.dtype == np.float16
    want = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(y.data, want, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("op", ["batch", "evaluation", "layer", "group"])
def test_float16_near_300(rng: np.random.Generator, op: str) -> None:
    """300 +- 1, whose squares overflow float16."""
    x = (300 + rng.standard_normal((64, 8, 4))).astype(np.float16)
    exact = x.astype(np.float64)
    mean, var = exact.mean((0, 1)), exact.var((0, 1))
    call = {
        "batch": lambda x, m, v: ops.batch_norm(x, None, None, training=True),
        "evaluation": lambda x, m, v: ops.batch_norm(x, m, v),
        "layer": lambda x, m, v: ops.layer_norm(x, (8, 4)),
        "group": lambda x, m, v: ops.group_norm(x, 2),
    }[op]
    y = call(x, mean.astype(np.float32), var.astype(np.float32))
    assert y.dtype == np.float16
    want = call(exact, mean, var)
    np.testing.assert_allclose(y.data, want.data, rtol=1e-3, atol=2e-3)


def test_float16_evaluation_keeps_eps() -> None:
    """1e-5 is 168 of float16's smallest steps; 1e-8 is 0 there, but not in the float32 of the kernel."""
    zeros = np.zeros(1, np.float16)
    for eps, want in ((1e-5, 316.228), (1e-8, 10_000)):
        y = ops.batch_norm(np.ones((2, 1), np.float16), zeros, zeros, eps=eps)
        np.testing.assert_allclose(y.data, want, rtol=1e-3)


@pytest.mark.parametrize("parameters", [np.float16, np.float32])
@pytest.mark.parametrize("op", ["batch", "fused", "evaluation", "layer", "group"])
def test_float16_input_takes_float32_parameters(rng: np.random.Generator, op: str, parameters: Any) -> None:
    """The output has the input's type, each gradient that of its own; all near the same in float64."""
    draw = rng.standard_normal((6, 5, 4)), *rng.uniform(0.5, 2, (4, 4))
    gy = rng.standard_normal((6, 5, 4)).astype(np.float16)

    def run(*arrays: np.ndarray) -> tuple[Any, ...]:
        x, w, b, *statistics = (Tensor(a, requires_grad=i < 3) for i, a in enumerate(arrays))
        y = {
            "batch": lambda: ops.batch_norm(x, *statistics, w, b, True),
            "fused": lambda: ops.batch_norm(x, *statistics, w, b, True, add=x.detach(), relu=True),
            "evaluation": lambda: ops.batch_norm(x, *statistics, w, b),
            "layer": lambda: ops.layer_norm(x, 4, w, b),
            "group": lambda: ops.group_norm(x, 2, w, b),
        }[op]()
        y.backward(gy.astype(y.dtype))
        return y, x.grad, w.grad, b.grad, *statistics

    x, *others = draw
    arrays = [x.astype(np.float16), *(a.astype(parameters) for a in others)]
    got, want = run(*(a.copy() for a in arrays)), run(*(a.astype(np.float64) for a in arrays))
    half, own = np.dtype(np.float16), np.dtype(parameters)
    assert [t.dtype for t in got] == [half, half, own, own, own, own]
    for g, w in zip(got, want, strict=True):
        assert np.max(np.abs(g.data - w.data)) <= 2e-3 * np.max(np.abs(w.data))
    if parameters == np.float32:  # they are not rounded to float16 on the way; the fused ReLU may flip at rounding
        for g, w in zip(got[2:], want[2:], strict=True):
            assert np.max(np.abs(g.data - w.data)) <= 2e-6 * np.max(np.abs(w.data))


def test_evaluation_saves_its_input_only_for_the_weight() -> None:
    x, w = ones(2, 3), ones(3)
    x.requires_grad = True
    assert ops.batch_norm(x, V, V, w).node.saved[0] is None
    w.requires_grad = True
    assert ops.batch_norm(x, V, V, w).node.saved[0] is x.data


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
    "half-weight": (
        lambda: ops.batch_norm(X, V, V, ones(3, dtype=np.float16)),
        DTypeError,
        r"batch_norm: one dtype expected, but input is float32, weight is float16",
    ),
    "half-wide": (
        lambda: ops.layer_norm(ones(2, 3, dtype=np.float16), 3, ones(3, dtype=np.float64)),
        DTypeError,
        r"layer_norm: one dtype expected, but input is float16, weight is float64",
    ),
    "layer-shape": (
        lambda: ops.layer_norm(X, (4, 3)),
        ShapeError,
        r"layer_norm: input must end in normalized_shape \(4, 3\), but has shape \(2, 4, 5, 3\)",
    ),
    "layer-none": (lambda: ops.layer_norm(X, ()), ShapeError, r"layer_norm: input must end in normalized_shape \(\)"),
    "layer-larger": (lambda: ops.layer_norm(V, (3, 3)), ShapeError, r"but has shape \(3,\)"),
    "layer-weight": (
        lambda: ops.layer_norm(X, 3, ones(5)),
        ShapeError,
        r"layer_norm: weight must have normalized_shape \(3,\), but has shape \(5,\)",
    ),
    "layer-bias": (
        lambda: ops.layer_norm(X, 3, V, ones(5)),
        ShapeError,
        r"layer_norm: bias must have normalized_shape",
    ),
    "layer-integers": (lambda: ops.layer_norm(ones(2, 3, dtype=np.int64), 3), DTypeError, r"layer_norm: input must be"),
    "group-nchw": (
        lambda: ops.group_norm(ones(2, 3, 4, 5), 1, V),
        ShapeError,
        r"group_norm: input \(2, 3, 4, 5\) has 5 channels.*but weight has shape \(3,\); it looks like \(N, C, H, W\)",
    ),
    "group-number": (
        lambda: ops.group_norm(X, 2),
        ArgumentError,
        r"group_norm: num_groups 2 must divide the 3 channels of the input",
    ),
    "group-none": (lambda: ops.group_norm(X, 0), ArgumentError, r"num_groups 0 must divide"),
    "group-vector": (lambda: ops.group_norm(V, 1), ShapeError, r"group_norm: input must be \(N, \.\.\., C\), but has"),
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
