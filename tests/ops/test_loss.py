"""Softmax and cross-entropy at their extremes, labels, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, MiniresError, RangeError, ShapeError

NAN, INF = float("nan"), float("inf")


def cross_entropy(logits: Any, target: int, dtype: Any = np.float64) -> tuple[float, list[float]]:
    """Loss and gradient of one row."""
    z = Tensor(np.array([logits], dtype=dtype), requires_grad=True)
    loss = ops.cross_entropy(z, np.array([target]))
    loss.backward()
    return loss.item(), z.grad.tolist()[0]


@pytest.mark.parametrize("others", [1, 9])
def test_float32_keeps_its_digits_at_every_margin(others: int) -> None:
    for margin in np.arange(0, 80.25, 0.25):  # each exact in float32
        logits, e = [margin, *[0.0] * others], math.exp(-margin)
        loss, gradient = cross_entropy(logits, 0, np.float32)
        assert loss == pytest.approx(math.log1p(others * e), rel=2e-6, abs=0)
        p = e / (1 + others * e)
        assert gradient == pytest.approx([-others * p, *[p] * others], rel=2e-6, abs=0)
        loss, gradient = cross_entropy(logits, 1, np.float32)
        assert loss == pytest.approx(margin + math.log1p(others * e), rel=2e-6, abs=0)
        first = 1 / (1 + others * e)
        assert gradient == pytest.approx([first, -first - (others - 1) * p, *[p] * (others - 1)], rel=2e-6, abs=0)


@pytest.mark.parametrize(
    ("logits", "target", "loss", "gradient"),
    [
        ([1e4, 0, -1e4], 2, 20000, [1, 0, -1]),
        ([-INF, 0, 0], 1, math.log(2), [0, -0.5, 0.5]),
        ([-INF, 0, 0], 0, INF, [-1, 0.5, 0.5]),
        ([-INF, -INF, -INF], 0, NAN, [NAN, NAN, NAN]),
        ([INF, 0, 0], 0, NAN, [NAN, NAN, NAN]),
        ([3e38, -3e38], 1, INF, [1, -1]),
        ([3e38, -3e38], 0, 0, [0, 0]),
    ],
    ids=str,
)
def test_extremes_are_pytorchs(logits: Any, target: int, loss: float, gradient: list[float]) -> None:
    got = cross_entropy(logits, target, np.float32)
    assert got[0] == pytest.approx(loss, rel=2e-6, nan_ok=True)
    assert got[1] == pytest.approx(gradient, rel=2e-6, nan_ok=True)


@pytest.mark.parametrize("shift", [0, 50, 89, 1e3, -1e3, 1e30])
def test_a_shift_of_all_logits_changes_nothing(shift: float) -> None:
    z = np.full((2, 4), shift, dtype=np.float32)
    np.testing.assert_array_equal(ops.softmax(z, 1).data, np.full_like(z, 0.25))
    np.testing.assert_allclose(ops.log_softmax(z, 1).data, -math.log(4), rtol=1e-7)


def test_log_softmax_does_not_underflow() -> None:
    assert ops.log_softmax(np.array([[0, -1000.0]]), 1).tolist() == [[0, -1000]]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_fused_is_unfused(rng: np.random.Generator, reduction: str) -> None:
    logits, target = 3 * rng.standard_normal((6, 5)), rng.integers(0, 5, 6)
    results = []
    for op in (ops.cross_entropy, lambda z, t, reduction: ops.nll_loss(ops.log_softmax(z, 1), t, reduction=reduction)):
        z = Tensor(logits, requires_grad=True)
        loss = op(z, target, reduction=reduction)
        loss.backward(np.ones(loss.shape))
        results.append((loss.data, z.grad.data))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("op", [ops.cross_entropy, ops.nll_loss])
def test_the_loss_of_nothing(op: Any) -> None:
    z, target = np.zeros((0, 5)), np.zeros(0, dtype=np.int64)
    assert math.isnan(op(z, target).item())
    assert op(z, target, reduction="sum").item() == 0
    assert op(z, target, reduction="none").shape == (0,)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, Tensor, list])
def test_labels_come_in_any_integer_type(kind: Any) -> None:
    z, labels = Tensor(np.eye(3)), [0, 2, 1]
    target = labels if kind is list else Tensor(np.array(labels)) if kind is Tensor else np.array(labels, dtype=kind)
    want = ops.cross_entropy(z, np.array(labels))
    assert ops.cross_entropy(z, target).item() == want.item()


Z = Tensor(np.zeros((4, 10), dtype=np.float32))
LABELS = np.array([0, 9, 3, 3])
BOTH: dict[str, tuple[Any, type[MiniresError], str]] = {
    "label-10": (lambda op: op(Z, LABELS + 1), RangeError, r"target holds class 10, but input has 10 classes"),
    "label--1": (lambda op: op(Z, LABELS - 1), RangeError, r"target holds class -1, but input has 10 classes"),
    "label--100": (lambda op: op(Z, LABELS * 0 - 100), RangeError, r"target holds class -100"),
    "label-float": (
        lambda op: op(Z, LABELS.astype(float)),
        DTypeError,
        r"target must hold class numbers.*not float64",
    ),
    "label-few": (lambda op: op(Z, LABELS[:3]), ShapeError, r"target has shape \(3,\), but input has 4 rows"),
    "label-onehot": (lambda op: op(Z, np.eye(4, 10, dtype=int)), ShapeError, r"target has shape \(4, 10\).*a row"),
    "logits": (lambda op: op(Z[0], LABELS), ShapeError, r"input must be \(N, C\).*but has shape \(10,\)"),
    "logits-integers": (lambda op: op(LABELS[None], LABELS[:1]), DTypeError, r"input must be of a floating type"),
    "reduction": (
        lambda op: op(Z, LABELS, reduction="avg"),
        ArgumentError,
        r"reduction must be 'mean', 'sum' or 'none', not 'avg'",
    ),
}


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize(("call", "error", "message"), BOTH.values(), ids=BOTH)
def test_bad_input_is_refused(name: str, call: Any, error: type[MiniresError], message: str) -> None:
    with pytest.raises(error, match=f"{name}: {message}"):
        call(getattr(ops, name))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_bad_softmax_is_refused(name: str) -> None:
    with pytest.raises(RangeError, match=f"{name}: dimension 2 is out of range"):
        getattr(ops, name)(Z, 2)
    with pytest.raises(DTypeError, match=f"{name}: input must be of a floating type"):
        getattr(ops, name)(Tensor(LABELS), 0)


@pytest.mark.parametrize(("op", "value"), [(ops.softmax, 1), (ops.log_softmax, 0)])
def test_softmax_of_a_number(op: Any, value: float) -> None:
    assert op(Tensor(3.0), 0).item() == value
