"""Every op refuses bad calls with an error that names the op and what was given."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from minires import Tensor, ops
from minires.errors import ArgumentError, DTypeError, MiniresError, RangeError, ShapeError
from minires.nn import functional as F


def f(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32))


IMAGES, INTEGERS = f(2, 5, 4, 3), Tensor(np.ones((4, 3), np.int64))
SOFT = Tensor(np.full((2, 3), 1 / 3, np.float32))

# Calls that must raise, each with the error and a pattern of its message.
BAD: list[tuple[str, Any, type, str]] = [
    ("add", lambda: ops.add(f(2, 3), f(4)), ShapeError, r"\(2, 3\).*\(4,\)"),
    ("sub", lambda: ops.sub(f(2, 3), f(3, 2)), ShapeError, r"\(2, 3\).*\(3, 2\)"),
    ("sub", lambda: ops.sub(Tensor([True]), Tensor([True])), DTypeError, "bool"),
    ("mul", lambda: ops.mul(f(5), "x"), DTypeError, "str"),
    ("div", lambda: ops.div(f(2, 2, 2), f(3)), ShapeError, r"\(2, 2, 2\).*\(3,\)"),
    ("pow", lambda: ops.pow(f(2), f(3)), ShapeError, r"\(2,\).*\(3,\)"),
    ("maximum", lambda: ops.maximum(f(2), f(3)), ShapeError, r"\(2,\).*\(3,\)"),
    ("minimum", lambda: ops.minimum(f(2), f(3)), ShapeError, r"\(2,\).*\(3,\)"),
    ("neg", lambda: ops.neg(Tensor([True])), DTypeError, "bool"),
    ("abs", lambda: ops.abs(Tensor([True])), DTypeError, "bool"),
    ("clip", lambda: ops.clip(f(2)), ArgumentError, "min"),
    ("where", lambda: ops.where(f(2), f(2), f(2)), DTypeError, "float32"),
    ("where", lambda: ops.where(Tensor([True, False]), f(3), f(3)), ShapeError, r"\(2,\).*\(3,\)"),
    ("leaky_relu", lambda: F.leaky_relu(INTEGERS), DTypeError, "int64"),
    ("leaky_relu", lambda: F.leaky_relu(f(2), "steep"), ArgumentError, "negative_slope.*'steep'"),
    ("gelu", lambda: F.gelu(f(2), approximate="sin"), ArgumentError, "sin"),
    ("gelu", lambda: F.gelu(INTEGERS), DTypeError, "int64"),
    ("silu", lambda: F.silu(INTEGERS), DTypeError, "int64"),
    ("dropout", lambda: F.dropout(f(2), 1.5), ArgumentError, "1.5"),
    ("dropout", lambda: F.dropout(INTEGERS), DTypeError, "int64"),
    ("sum", lambda: ops.sum(f(2, 3), 2), RangeError, "dimension 2"),
    ("mean", lambda: ops.mean(f(2, 3), (0, 0)), ArgumentError, "twice"),
    ("mean", lambda: ops.mean(INTEGERS), DTypeError, "int64"),
    ("var", lambda: ops.var(INTEGERS), DTypeError, "int64"),
    ("std", lambda: ops.std(f(2, 3), 5), RangeError, "dimension 5"),
    ("logsumexp", lambda: ops.logsumexp(f(2, 3), 2), RangeError, "dimension 2"),
    ("max", lambda: ops.max(f(0, 3)), ShapeError, r"\(0, 3\)"),
    ("min", lambda: ops.min(f(3, 0), 1), ShapeError, r"\(3, 0\)"),
    ("amax", lambda: ops.amax(f(0)), ShapeError, r"\(0,\)"),
    ("amin", lambda: ops.amin(f(2), 3), RangeError, "dimension 3"),
    ("argmax", lambda: ops.argmax(f(0)), ShapeError, r"\(0,\)"),
    ("argmin", lambda: ops.argmin(f(2), 1), RangeError, "dimension 1"),
    ("reshape", lambda: ops.reshape(f(2, 3), 4, 2), ShapeError, r"\(2, 3\).*\(4, 2\)"),
    ("flatten", lambda: ops.flatten(f(2, 3), 1, 0), ArgumentError, "start_dim 1"),
    ("unflatten", lambda: ops.unflatten(f(2, 6), 1, (4, 2)), ShapeError, r"\(4, 2\)"),
    ("permute", lambda: ops.permute(f(2, 3), 0, 0), ShapeError, r"\(2, 3\)"),
    ("transpose", lambda: ops.transpose(f(2, 3), 0, 2), RangeError, "dimension 2"),
    ("expand", lambda: ops.expand(f(2, 3), 4, 3), ShapeError, r"\(2, 3\).*\(4, 3\)"),
    ("expand_as", lambda: ops.expand_as(f(2), f(3)), ShapeError, r"\(2,\).*\(3,\)"),
    ("squeeze", lambda: ops.squeeze(f(2), 1), RangeError, "dimension 1"),
    ("unsqueeze", lambda: ops.unsqueeze(f(2), 4), RangeError, "dimension 4"),
    ("concatenate", lambda: ops.concatenate([f(2, 3), f(2, 4)]), ShapeError, r"\(2, 3\).*\(2, 4\)"),
    ("concatenate", lambda: ops.concatenate([]), ShapeError, "none"),
    ("stack", lambda: ops.stack([f(2), f(3)]), ShapeError, r"\(2,\).*\(3,\)"),
    ("split", lambda: ops.split(f(5), (2, 2)), ShapeError, "5"),
    ("chunk", lambda: ops.chunk(f(5), 0), ArgumentError, "0"),
    ("pad", lambda: F.pad(IMAGES, (1, 1, 1)), ArgumentError, r"\(1, 1, 1\)"),
    ("pad", lambda: F.pad(IMAGES, (0, 0, 4, 4), mode="reflect"), ShapeError, r"\(2, 5, 4, 3\)"),
    ("pad", lambda: F.pad(IMAGES, (1, 1), mode="circular"), ArgumentError, "circular"),
    ("index", lambda: f(2, 3)[5], RangeError, r"\(2, 3\)"),
    ("index", lambda: f(2, 3)[Tensor([0, 7])], RangeError, r"\(2, 3\)"),
    ("index", lambda: f(2, 3)["a"], ArgumentError, "str"),
    ("matmul", lambda: ops.matmul(f(2, 3), f(4, 2)), ShapeError, r"\(2, 3\).*\(4, 2\)"),
    ("matmul", lambda: ops.matmul(f(), f(3)), ShapeError, r"\(\).*\(3,\)"),
    ("linear", lambda: F.linear(f(2, 3), f(4, 5)), ShapeError, r"\(2, 3\).*\(4, 5\)"),
    ("linear", lambda: F.linear(f(2, 5), f(4, 5), f(3)), ShapeError, r"\(4, 5\).*\(3,\)"),
    ("conv2d", lambda: F.conv2d(IMAGES, f(3, 3, 4, 2)), ShapeError, r"\(2, 5, 4, 3\).*\(3, 3, 4, 2\)"),
    ("conv2d", lambda: F.conv2d(IMAGES, f(7, 3, 3, 2)), ShapeError, r"7x3.*5x4"),
    ("conv2d", lambda: F.conv2d(f(5, 4, 3), f(3, 3, 3, 2)), ShapeError, r"\(5, 4, 3\)"),
    ("conv2d", lambda: F.conv2d(IMAGES, f(3, 3, 3, 2), padding="equal"), ArgumentError, "equal"),
    ("conv2d", lambda: F.conv2d(IMAGES, f(3, 3, 3, 2), stride=0), ArgumentError, "stride.*0"),
    ("conv2d", lambda: F.conv2d(IMAGES, f(3, 3, 3, 2), dilation=0), ArgumentError, "dilation.*0"),
    ("conv2d", lambda: F.conv2d(IMAGES, f(3, 3, 1, 4), groups=2), MiniresError, "groups|3 channels"),
    ("conv_transpose2d", lambda: F.conv_transpose2d(IMAGES, f(3, 3, 2, 4)), ShapeError, r"\(3, 3, 2, 4\)"),
    ("conv_transpose2d", lambda: F.conv_transpose2d(IMAGES, f(3, 3, 2, 3), output_padding=1), ArgumentError, "output"),
    ("max_pool2d", lambda: F.max_pool2d(IMAGES, 6), ShapeError, "6x6.*5x4"),
    ("max_pool2d", lambda: F.max_pool2d(IMAGES, 2, padding=2), ArgumentError, "padding"),
    ("avg_pool2d", lambda: F.avg_pool2d(f(5, 4), 2), ShapeError, r"\(5, 4\)"),
    ("adaptive_avg_pool2d", lambda: F.adaptive_avg_pool2d(IMAGES, 0), ArgumentError, "0"),
    ("adaptive_max_pool2d", lambda: F.adaptive_max_pool2d(f(2, 3), 1), ShapeError, r"\(2, 3\)"),
    ("batch_norm", lambda: F.batch_norm(f(4, 3), f(2), f(2)), ShapeError, r"\(4, 3\).*\(2,\)"),
    ("batch_norm", lambda: F.batch_norm(f(1, 3), f(3), f(3), training=True), ShapeError, r"more than 1 value"),
    ("batch_norm", lambda: F.batch_norm(f(), None, None, training=True), ShapeError, r"\(\.\.\., C\).*a number"),
    ("batch_norm", lambda: F.batch_norm(f(), f(0), f(0)), ShapeError, r"\(\.\.\., C\).*a number"),
    ("layer_norm", lambda: F.layer_norm(f(4, 3), 3.0), ArgumentError, "3.0"),
    ("group_norm", lambda: F.group_norm(f(4, 4), 2.0), ArgumentError, "2.0"),
    ("group_norm", lambda: F.group_norm(f(4, 4), "2"), ArgumentError, "2"),
    ("layer_norm", lambda: F.layer_norm(f(4, 3), 4), ShapeError, r"\(4, 3\)"),
    ("group_norm", lambda: F.group_norm(IMAGES, 2), MiniresError, "3"),
    ("softmax", lambda: F.softmax(f(2, 3), 2), RangeError, "dimension 2"),
    ("log_softmax", lambda: F.log_softmax(INTEGERS, 0), DTypeError, "int64"),
    ("nll_loss", lambda: F.nll_loss(f(2, 3), [0, 3]), RangeError, "class 3"),
    ("cross_entropy", lambda: F.cross_entropy(f(2, 3), [0, -1]), RangeError, "class -1"),
    ("cross_entropy", lambda: F.cross_entropy(f(2, 3), [0, 1, 2]), ShapeError, r"\(3,\)"),
    ("cross_entropy", lambda: F.cross_entropy(f(2, 3), f(2, 4)), DTypeError, r"\(2, 3\).*float32 \(2, 4\)"),
    ("cross_entropy", lambda: F.cross_entropy(f(2, 3), SOFT, f(4)), ShapeError, r"\(4,\)"),
    ("cross_entropy", lambda: F.cross_entropy(f(2, 3), SOFT, label_smoothing=1.5), ArgumentError, "1.5"),
    ("cross_entropy", lambda: F.cross_entropy(f(2, 3), SOFT, reduction="max"), ArgumentError, "max"),
    ("mse_loss", lambda: F.mse_loss(f(2, 3), f(2)), ShapeError, r"\(2, 3\).*\(2,\)"),
    ("l1_loss", lambda: F.l1_loss(f(2, 3), f(3, 2)), ShapeError, r"\(2, 3\).*\(3, 2\)"),
    ("binary_cross_entropy_with_logits", lambda: F.binary_cross_entropy_with_logits(f(2), f(3)), ShapeError, r"\(2,\)"),
]  # fmt: skip

# Ops that take whatever can be a tensor of numbers: there is no bad argument but one that is no number.
ANY_NUMBERS = ("relu", "sigmoid", "tanh", "exp", "log", "sqrt")
BAD += [(name, lambda name=name: getattr(ops, name)("text"), DTypeError, "str|numbers") for name in ANY_NUMBERS]


@pytest.mark.parametrize(("name", "call", "error", "message"), BAD, ids=[f"{b[0]}-{i}" for i, b in enumerate(BAD)])
def test_a_bad_call_is_refused(name: str, call: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}") as refused:
        call()
    shown = {"expand_as": "expand"}.get(name, name)
    assert str(refused.value).startswith((f"{shown}:", "Tensor:"))


def test_every_op_has_a_bad_call() -> None:
    public = {n for n, v in vars(ops).items() if isinstance(v, types.FunctionType)}
    aliases = {n for n in public for m in public if n < m and getattr(ops, n) is getattr(ops, m)}
    assert public - aliases - {"cast"} == {name for name, *_ in BAD}  # cast is Tensor.to's, which checks
