"""Softmax and losses at their extremes; labels, weights, smoothing; float16."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops

NAN, INF = float("nan"), float("inf")
BCE = ops.binary_cross_entropy_with_logits
MARGINS = np.arange(0, 80.25, 0.25)  # each exact in float32


def value_and_gradient(op: Any, z: Any, *args: Any, dtype: Any = np.float64, **settings: Any) -> tuple[Any, Any]:
    """Of an op's first argument, for a gradient of ones."""
    z = Tensor(np.asarray(z, dtype), requires_grad=True)
    loss = op(z, *args, **settings)
    loss.backward(np.ones(loss.shape, loss.dtype))
    return loss.tolist(), z.grad.tolist()


def cross_entropy(logits: Any, target: int, dtype: Any = np.float64, **settings: Any) -> tuple[float, list[float]]:
    """Loss and gradient of one row."""
    return value_and_gradient(ops.cross_entropy, logits, np.array(target), dtype=dtype, **settings)


@pytest.mark.parametrize("others", [1, 9])
def test_float32_keeps_its_digits_at_every_margin(others: int) -> None:
    for margin in MARGINS:
        logits, e = [margin, *[0.0] * others], math.exp(-margin)
        loss, gradient = cross_entropy(logits, 0, np.float32)
        assert loss == pytest.approx(math.log1p(others * e), rel=2e-6, abs=0)
        p = e / (1 + others * e)
        assert gradient == pytest.approx([-others * p, *[p] * others], rel=2e-6, abs=0)
        loss, gradient = cross_entropy(logits, 1, np.float32)
        assert loss == pytest.approx(margin + math.log1p(others * e), rel=2e-6, abs=0)
        first = 1 / (1 + others * e)
        assert gradient == pytest.approx([first, -first - (others - 1) * p, *[p] * (others - 1)], rel=2e-6, abs=0)


@pytest.mark.parametrize("smoothing", [0.1, 1e-3, 1e-6])
def test_float32_keeps_its_digits_with_smoothing(smoothing: float) -> None:
    """Near the optimum, where p = q, the gradient cancels: there the error is 2e-6 of what is subtracted."""
    q = smoothing / 10
    for margin in MARGINS:
        e = math.exp(-margin)
        p = e / (1 + 9 * e)
        loss, gradient = cross_entropy([margin, *[0.0] * 9], 0, np.float32, label_smoothing=smoothing)
        assert loss == pytest.approx(9 * q * margin + math.log1p(9 * e), rel=2e-6, abs=0)
        assert gradient == pytest.approx([-9 * (p - q), *[p - q] * 9], rel=0, abs=2e-6 * (p + q) * 9)
        assert gradient[1:] == pytest.approx([p - q] * 9, rel=0, abs=2e-6 * (p + q))


@pytest.mark.parametrize("settings", [{}, {"weight": np.ones(3, np.float32)}], ids=["plain", "weighted"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("logits", "target", "loss", "gradient"),
    [
        ([1e4, 0, -1e4], 2, 20000, [1, 0, -1]),
        ([-INF, 0, 0], 1, math.log(2), [0, -0.5, 0.5]),
        ([-INF, 0, 0], 0, INF, [-1, 0.5, 0.5]),
        ([-INF, -INF, -INF], 0, NAN, [NAN, NAN, NAN]),
        ([INF, 0, 0], 0, NAN, [NAN, NAN, NAN]),
        ([INF, 0, 0], 1, NAN, [NAN, NAN, NAN]),
        ([NAN, 0, 0], 1, NAN, [NAN, NAN, NAN]),
        ([3e38, -3e38, -3e38], 1, INF, [1, -1, 0]),
        ([3e38, -3e38, -3e38], 0, 0, [0, 0, 0]),
    ],
    ids=str,
)
def test_extremes_are_pytorchs(
    logits: Any, target: int, loss: float, gradient: list[float], soft: bool, settings: dict[str, Any]
) -> None:
    """Also as probabilities, one of which is 1: there PyTorch's loss is NaN beside a logit of -inf."""
    labels = np.eye(3, dtype=np.float32)[target] if soft else np.array(target)
    got = value_and_gradient(ops.cross_entropy, logits, labels, dtype=np.float32, **settings)
    assert got[0] == pytest.approx(loss, rel=2e-6, nan_ok=True)
    assert got[1] == pytest.approx(gradient, rel=2e-6, nan_ok=True)


def test_smoothing_makes_a_masked_class_infinitely_costly() -> None:
    loss, gradient = cross_entropy([-INF, 0, 0], 1, label_smoothing=0.3)
    assert loss == INF
    assert gradient == pytest.approx([-0.1, -0.3, 0.4])


@pytest.mark.parametrize("shift", [0, 50, 89, 1e3, -1e3, 1e30])
def test_a_shift_of_all_logits_changes_nothing(shift: float) -> None:
    z = np.full((2, 4), shift, dtype=np.float32)
    np.testing.assert_array_equal(ops.softmax(z, 1).data, np.full_like(z, 0.25))
    np.testing.assert_allclose(ops.log_softmax(z, 1).data, -math.log(4), rtol=1e-7)


def test_log_softmax_does_not_underflow() -> None:
    assert ops.log_softmax(np.array([[0, -1000.0]]), 1).tolist() == [[0, -1000]]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("settings", [{}, {"weight": [1.0, 2.0, 0.5, 3.0, 1.0]}, {"ignore_index": 2}], ids=str)
def test_fused_is_unfused(rng: np.random.Generator, reduction: str, settings: dict[str, Any]) -> None:
    logits, target = 3 * rng.standard_normal((6, 5)), rng.integers(0, 5, 6)
    settings = {k: np.array(v) if k == "weight" else v for k, v in settings.items()}
    one = value_and_gradient(ops.cross_entropy, logits, target, reduction=reduction, **settings)
    two = value_and_gradient(
        lambda z, *a, **k: ops.nll_loss(ops.log_softmax(z, 1), *a, **k), logits, target, reduction=reduction, **settings
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_of_one_class_are_its_number(rng: np.random.Generator, dtype: Any) -> None:
    logits, target = 3 * rng.standard_normal((6, 5)), rng.integers(0, 5, 6)
    hard = value_and_gradient(ops.cross_entropy, logits, target, dtype=dtype)
    assert value_and_gradient(ops.cross_entropy, logits, np.eye(5, dtype=dtype)[target], dtype=dtype) == hard


def test_smoothing_is_a_mixture(rng: np.random.Generator) -> None:
    """1 - s of the loss for the label, and s of the mean of the losses for all labels."""
    z, target, s = rng.standard_normal((6, 5)), rng.integers(0, 5, 6), 0.2
    every = [ops.cross_entropy(z, np.full(6, c)).item() for c in range(5)]
    want = (1 - s) * ops.cross_entropy(z, target).item() + s * sum(every) / 5
    assert ops.cross_entropy(z, target, label_smoothing=s).item() == pytest.approx(want, rel=1e-14)


LOSSES = [ops.nll_loss, ops.cross_entropy, partial(ops.cross_entropy, label_smoothing=0.1)]
each_loss = pytest.mark.parametrize("op", LOSSES, ids=["nll_loss", "cross_entropy", "smoothed"])


@each_loss
def test_the_loss_of_nothing(op: Any) -> None:
    z, target = np.zeros((0, 5)), np.zeros(0, dtype=np.int64)
    assert math.isnan(op(z, target).item())
    assert op(z, target, reduction="sum").item() == 0
    assert op(z, target, reduction="none").shape == (0,)


@each_loss
@pytest.mark.parametrize("weight", [None, np.array([0.5, 1, 2])])
def test_where_all_is_ignored(op: Any, weight: Any) -> None:
    z, target = np.ones((2, 3)), np.array([-100, -100])
    loss, gradient = value_and_gradient(op, z, target, weight)
    assert math.isnan(loss)
    assert gradient == [[0, 0, 0]] * 2
    assert value_and_gradient(op, z, target, weight, reduction="sum") == (0, [[0, 0, 0]] * 2)
    assert op(z, target, weight, reduction="none").tolist() == [0, 0]


@each_loss
@pytest.mark.parametrize("weight", [None, np.array([0.5, 1, 2])])
@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
def test_an_ignored_row_does_not_leak(op: Any, weight: Any, garbage: float) -> None:
    """PyTorch's gradient of such a row is NaN; padding may hold anything."""
    z, target = [[1.0, 2, 3], [garbage] * 3, [3, 1, 0]], np.array([0, 7, 1])
    loss, gradient = value_and_gradient(op, z, target, weight, ignore_index=7)
    alone, rest = value_and_gradient(op, z[::2], target[::2], weight)
    assert loss == pytest.approx(alone, rel=1e-14)
    assert gradient[1] == [0, 0, 0]
    np.testing.assert_allclose(gradient[::2], rest, rtol=1e-14)


@each_loss
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, Tensor, list])
def test_labels_come_in_any_integer_type(op: Any, kind: Any) -> None:
    z, labels = Tensor(np.eye(3)), [0, 2, 1]
    target = labels if kind is list else Tensor(np.array(labels)) if kind is Tensor else np.array(labels, dtype=kind)
    assert op(z, target).item() == op(z, np.array(labels)).item()
    want = op(Tensor(np.eye(3)[:2]), np.array(labels[:2])).item()
    assert op(z, target, ignore_index=1).item() == pytest.approx(want, rel=1e-15)


@each_loss
def test_labels_may_be_overwritten_after_the_forward_pass(op: Any) -> None:
    """A loader may reuse their memory."""
    target, weight = np.array([0, 2]), np.array([0.5, 1, 2])
    z, want = Tensor(np.eye(3)[:2], requires_grad=True), value_and_gradient(op, np.eye(3)[:2], target, weight)
    loss = op(z, target, weight)
    target[:], weight[:] = 1, 7
    loss.backward()
    assert (loss.item(), z.grad.tolist()) == want


def test_a_class_of_weight_zero_counts_nothing() -> None:
    loss, gradient = value_and_gradient(ops.cross_entropy, [[-INF, 0, 1], [0, 0, 0]], [0, 1], np.array([0.0, 2, 1]))
    assert (loss, gradient[0]) == (pytest.approx(math.log(3)), [0, 0, 0])


@each_loss
def test_float16_means_do_not_overflow(op: Any, rng: np.random.Generator) -> None:
    """100,000 losses of about 2 sum to more than 65,504, and so do the weights."""
    z, target = rng.standard_normal((100_000, 3)).astype(np.float16), rng.integers(0, 3, 100_000)
    weight = np.array([1.0, 3.0, 2.0])
    got = op(Tensor(z), target, weight.astype(np.float16))
    assert got.dtype == np.float16
    assert got.item() == pytest.approx(op(z.astype(np.float64), target, weight).item(), rel=2e-3, abs=1e-3)


@each_loss
def test_float16_scores_take_float32_weights(op: Any) -> None:
    z = Tensor(np.eye(3, dtype=np.float16), requires_grad=True)
    loss = op(z, [0, 2, 1], np.array([1, 2, 3], np.float32))
    loss.backward()
    assert (loss.dtype, z.grad.dtype) == (np.float16, np.float16)


def test_one_row_of_many_counts_in_float16(rng: np.random.Generator) -> None:
    """1/N is no float16, nor is N: neither may stand between the loss and the scores."""
    z, target = rng.standard_normal((2**18, 3)).astype(np.float16), np.full(2**18, -100)
    target[5] = 1
    for op in (ops.cross_entropy, ops.nll_loss):
        (got, gradient), (want, exact) = (
            value_and_gradient(op, z, target, dtype=dtype) for dtype in (np.float16, np.float64)
        )
        assert got == pytest.approx(want, rel=2**-10)
        assert gradient[5] == pytest.approx(exact[5], rel=2**-10)
        assert not np.delete(gradient, 5, 0).any()


@pytest.mark.parametrize("op", [ops.mse_loss, ops.l1_loss, ops.binary_cross_entropy_with_logits])
def test_float16_gradients_of_a_mean_over_many(op: Any, rng: np.random.Generator) -> None:
    """1e-6 alone has four bits in float16; the gradient of a score of 100 has eleven."""
    x, target = (100 * rng.standard_normal(1_000_000)).astype(np.float16), np.zeros(1_000_000)
    (got, gradient), (want, exact) = (
        value_and_gradient(op, x, target.astype(dtype), dtype=dtype) for dtype in (np.float16, np.float64)
    )
    assert got == pytest.approx(want, rel=2**-10)
    step = 2.0**-24  # float16's smallest
    np.testing.assert_allclose(gradient, exact, rtol=2**-11, atol=step / 2 * 1.001)


def test_log_softmax_of_more_classes_than_float16_counts(rng: np.random.Generator) -> None:
    z = rng.standard_normal(70_000).astype(np.float16)
    got, want = (value_and_gradient(ops.log_softmax, z, 0, dtype=dtype)[1] for dtype in (np.float16, np.float64))
    share = 1 - np.array(want)  # exp(y) * 70,000, of a y between -8 and -16 that is itself rounded, by 2^-8
    np.testing.assert_allclose(1 - np.array(got), share, rtol=1.1 * 2**-8, atol=2**-10)


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
def test_float16_gradients_of_a_softmax_round_once(op: Any, rng: np.random.Generator) -> None:
    z, gy = rng.standard_normal((8, 100)).astype(np.float16), (3 + rng.standard_normal((8, 100))).astype(np.float16)
    x = Tensor(z, requires_grad=True)
    y = op(x, 1)
    y.backward(gy)
    p, g = y.data.astype(np.float64), gy.astype(np.float64)
    want = p * (g - (g * p).sum(1, keepdims=True)) if op is ops.softmax else g - np.exp(p) * g.sum(1, keepdims=True)
    np.testing.assert_allclose(x.grad.data, want, rtol=2**-10, atol=1e-5)


def test_binary_targets_gradient_keeps_its_digits_near_zero() -> None:
    """softplus(-x) - softplus(x) is -x, which the difference loses."""
    target = Tensor(np.float32([0.5]), requires_grad=True)
    BCE(np.float32([1e-7]), target).backward()
    assert target.grad.item() == -np.float32(1e-7)


def test_float16_logits_at_the_end_of_their_range() -> None:
    loss, gradient = cross_entropy([65504.0, 0, -65504.0], 0, np.float16)
    assert (loss, gradient) == (0, [0, 0, 0])
    assert cross_entropy([100.0, 0], 1, np.float16) == (100, [1, -1])


def test_mean_reduces_float16_probabilities_in_float32(rng: np.random.Generator) -> None:
    z, q = rng.standard_normal((2, 8, 5)).astype(np.float16)
    q = np.float16(ops.softmax(q, 1).data)
    tensors = Tensor(z, requires_grad=True), Tensor(q, requires_grad=True)
    loss = ops.cross_entropy(*tensors, label_smoothing=0.1)
    loss.backward()
    want = ops.cross_entropy(z.astype(np.float64), q.astype(np.float64), label_smoothing=0.1)
    assert {loss.dtype, *(t.grad.dtype for t in tensors)} == {np.dtype(np.float16)}
    assert loss.item() == pytest.approx(want.item(), rel=1e-3)


@pytest.mark.parametrize(("op", "value"), [(ops.softmax, 1), (ops.log_softmax, 0)])
def test_softmax_of_a_number(op: Any, value: float) -> None:
    assert op(Tensor(3.0), 0).item() == value


def test_l1_has_no_slope_at_equality() -> None:
    assert value_and_gradient(ops.l1_loss, [1.0, 2, 3], np.array([1.0, 3, 1]), reduction="sum") == (3, [0, -1, 1])


@pytest.mark.parametrize(
    ("x", "target", "loss", "gradient"),
    [
        (1e4, 0, 1e4, 1),
        (-1e4, 1, 1e4, -1),
        (1e4, 1, 0, 0),
        (-1e4, 0, 0, 0),
        (1e4, 0.25, 7500, 0.75),
        (-INF, 1, INF, -1),
        (INF, 1, NAN, 0),
        (NAN, 0.5, NAN, NAN),
    ],
)
def test_binary_extremes_are_pytorchs(x: float, target: float, loss: float, gradient: float) -> None:
    got = value_and_gradient(BCE, x, np.float32(target), dtype=np.float32)
    assert got[0] == pytest.approx(loss, nan_ok=True)
    assert got[1] == pytest.approx(gradient, nan_ok=True)


@pytest.mark.parametrize("pos_weight", [1.0, 0.25])
def test_binary_float32_keeps_its_digits_at_every_margin(pos_weight: float) -> None:
    for margin in MARGINS:
        e, weight = math.exp(-margin), np.float32(pos_weight)
        for sign, target, loss, gradient in (
            (1, 1, pos_weight * math.log1p(e), -pos_weight * e / (1 + e)),
            (-1, 0, math.log1p(e), e / (1 + e)),
            (-1, 1, pos_weight * (margin + math.log1p(e)), -pos_weight / (1 + e)),
            (1, 0, margin + math.log1p(e), 1 / (1 + e)),
        ):
            x, t = np.float32(sign * margin), np.float32(target)
            got = value_and_gradient(BCE, x, t, dtype=np.float32, pos_weight=weight)
            assert got == pytest.approx((loss, gradient), rel=2e-6, abs=0)


def test_binary_cross_entropy_is_that_of_two_classes(rng: np.random.Generator) -> None:
    x, target = rng.standard_normal(6), rng.integers(0, 2, 6)
    two = ops.cross_entropy(np.stack([0 * x, x], 1), target)
    assert BCE(x, target.astype(float)).item() == pytest.approx(two.item(), rel=1e-14)
