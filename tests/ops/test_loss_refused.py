"""What softmax and the losses refuse, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, GraphError, MiniresError, RangeError, ShapeError

Z = Tensor(np.zeros((4, 10), dtype=np.float32))
LABELS = np.array([0, 9, 3, 3])
IMAGE = np.zeros((2, 10, 4, 4), np.float32)
BOTH: dict[str, tuple[Any, type[MiniresError], str]] = {
    "label-10": (lambda op: op(Z, LABELS + 1), RangeError, r"target holds class 10, but input has 10 classes"),
    "label--1": (lambda op: op(Z, LABELS - 1), RangeError, r"target holds class -1, but input has 10 classes"),
    "label--100": (
        lambda op: op(Z, LABELS - 100, ignore_index=-1),
        RangeError,
        r"target holds class -100, but input has 10 classes, counted from 0",
    ),
    "label-beside-ignored": (lambda op: op(Z, [0, -100, -1, 3]), RangeError, r"target holds class -1,"),
    "label-float": (
        lambda op: op(Z, LABELS.astype(float)),
        DTypeError,
        r"target must hold class numbers.*not float64",
    ),
    "label-few": (
        lambda op: op(Z, LABELS[:3]),
        ShapeError,
        r"target has shape \(3,\), but input \(4, 10\) needs one class number a row, shape \(4,\)$",
    ),
    "label-onehot": (lambda op: op(Z, np.eye(4, 10, dtype=int)), ShapeError, r"target has shape \(4, 10\).*a row"),
    "channels-first": (
        lambda op: op(IMAGE, np.zeros((2, 4, 4), int)),
        ShapeError,
        r"target has shape \(2, 4, 4\).*looks like \(N, C, \.\.\.\): minires is channels-last",
    ),
    "logits": (lambda op: op(Z[0], LABELS), ShapeError, r"target has shape \(4,\), but input \(10,\) needs"),
    "number": (lambda op: op(Tensor(1.0), 0), ShapeError, r"input must be \(N, \.\.\., C\).*but is a number"),
    "logits-integers": (lambda op: op(LABELS[None], LABELS[:1]), DTypeError, r"input must be of a floating type"),
    "weight": (
        lambda op: op(Z, LABELS, np.ones(3, np.float32)),
        ShapeError,
        r"weight must hold one number for each of the 10",
    ),
    "weight-type": (lambda op: op(Z, LABELS, np.ones(10)), DTypeError, r".*weight is float64"),
    "weight-gradient": (
        lambda op: op(Z, LABELS, Tensor(np.ones(10, np.float32), requires_grad=True)),
        GraphError,
        r"the classes' weight gets no gradient",
    ),
    "ignore-index": (
        lambda op: op(Z, LABELS, ignore_index=None),
        ArgumentError,
        r"ignore_index must be an int, not None; -100 ignores no class",
    ),
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


X, Y = Tensor(np.zeros((4, 3), np.float32)), np.zeros((4, 3), np.float32)
BCE = ops.binary_cross_entropy_with_logits
REFUSED: dict[str, tuple[Any, type[MiniresError], str]] = {
    "smoothing": (
        lambda: ops.cross_entropy(Z, LABELS, label_smoothing=1.5),
        ArgumentError,
        r"cross_entropy: label_smoothing must be a number in \[0, 1\], not 1\.5",
    ),
    "smoothing-text": (
        lambda: ops.cross_entropy(Z, LABELS, label_smoothing="a"),
        ArgumentError,
        r"label_smoothing must be a number in \[0, 1\], not 'a'",
    ),
    "no-classes-smoothed": (
        lambda: ops.cross_entropy(np.zeros((0, 0), "f"), LABELS[:0], label_smoothing=0.1),
        ShapeError,
        r"class scores in its last axis, but has shape \(0, 0\)",
    ),
    "no-classes-soft": (
        lambda: ops.cross_entropy(np.zeros((2, 0), "f"), np.zeros((2, 0), "f")),
        ShapeError,
        r"but has shape \(2, 0\)",
    ),
    "soft-ignored": (
        lambda: ops.cross_entropy(Z, Z, ignore_index=3),
        ArgumentError,
        r"cross_entropy: ignore_index 3 names a class, but target holds probabilities",
    ),
    "soft-type": (lambda: ops.cross_entropy(Z, np.zeros((4, 10))), DTypeError, r"cross_entropy: .*target is float64"),
    "soft-shape": (
        lambda: ops.cross_entropy(Z, np.zeros((4, 9))),
        DTypeError,
        r"or probabilities of the input's shape",
    ),
    "mse": (
        lambda: ops.mse_loss(X, Y[:, :1]),
        ShapeError,
        r"mse_loss: input has shape \(4, 3\), but target \(4, 1\); reshape",
    ),
    "l1": (lambda: ops.l1_loss(X, Y[0]), ShapeError, r"l1_loss: input has shape \(4, 3\), but target \(3,\)"),
    "bce": (lambda: BCE(X, Y.T), ShapeError, r"binary_cross_entropy_with_logits: input has shape \(4, 3\), but target"),
    "mse-integers": (
        lambda: ops.mse_loss(X, Y.astype(int)),
        DTypeError,
        r"mse_loss: target must be of a floating type",
    ),
    "bce-labels": (lambda: BCE(X, Y.astype(int)), DTypeError, r"target must be of a floating type"),
    "bce-weight": (lambda: BCE(X, Y, np.ones((2, 4, 3), "f")), ShapeError, r"weight of shape \(2, 4, 3\) does not"),
    "bce-pos-weight": (
        lambda: BCE(X, Y, pos_weight=np.ones(4, "f")),
        ShapeError,
        r"pos_weight of shape \(4,\) does not",
    ),
    "bce-reduction": (
        lambda: BCE(X, Y, reduction="avg"),
        ArgumentError,
        r"binary_cross_entropy_with_logits: reduction",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_other_bad_input_is_refused(call: Any, error: type[MiniresError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_bad_softmax_is_refused(name: str) -> None:
    with pytest.raises(RangeError, match=f"{name}: dimension 2 is out of range"):
        getattr(ops, name)(Z, 2)
    with pytest.raises(DTypeError, match=f"{name}: input must be of a floating type"):
        getattr(ops, name)(Tensor(LABELS), 0)
