"""The table of all ops and geometries. Inputs stay below 200 elements, so that finite differences are sharp."""

from __future__ import annotations

import math
import operator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from minires import Tensor, ops
from tests import reference
from tests.ops.case import NCHW, OIHW, Arrays, Case, away, normal, positive

ROWS = ((4, 3), (4, 3))  # two operands alike
REPEATED = {"row": ((4, 3), (3,)), "column": ((4, 3), (4, 1)), "both": ((4, 1, 3), (2, 1)), "number": ((4, 3), ())}


def binary(name: str, naive: Any, torch: str = "", make: Any = normal, value: str = "exact", gradient: str = "exact",
           sums: str = "sum") -> list[Case]:  # fmt: skip
    """An operator on operands that are alike, and that broadcast in four ways, where gradients are sums."""
    op = getattr(ops, name)

    def case(geometry: str, shapes: Any, gradient: str, batched: tuple[int, ...]) -> Case:
        return Case(
            f"elementwise-{name}-{geometry}", op, lambda a, b: reference.elementwise(naive, a, b),
            lambda t, a, b: getattr(t, torch or name)(a, b), make(*shapes), value, gradient, batched=batched,
        )  # fmt: skip

    first = case("alike", ROWS, gradient, (0, 1))
    return [first] + [case(n, s, sums, (0, 1) if n == "column" else (0,)) for n, s in REPEATED.items()]


def unary(name: str, naive: Any, make: Any, value: str, gradient: str) -> Case:
    return Case(
        f"elementwise-{name}", getattr(ops, name), lambda x: reference.elementwise(naive, x),
        lambda t, x: getattr(t, name)(x), make((4, 3, 5)), value, gradient,
    )  # fmt: skip


ELEMENTWISE = [
    *binary("add", operator.add),
    *binary("sub", operator.sub),
    *binary("mul", operator.mul),
    # divisors of 1 or more: the third derivative, which finite differences leave as their error, grows as 1 / b^4
    *binary("div", operator.truediv, make=partial(positive, low=1), gradient="function"),
    *binary("pow", operator.pow, make=positive, value="function", gradient="function", sums="function"),
    *binary("maximum", max, make=away),
    unary("neg", operator.neg, normal, "exact", "exact"),
    unary("exp", math.exp, normal, "function", "function"),
    unary("log", math.log, positive, "function", "rounded"),
    unary("sqrt", math.sqrt, positive, "rounded", "rounded"),
    unary("relu", lambda v: max(v, 0.0), away, "exact", "exact"),
    Case(
        "elementwise-pow-square", lambda x: x**2, lambda x: reference.elementwise(lambda v: v * v, x),
        lambda t, x: x**2, away((4, 3)), "exact", "exact",
    ),
    Case(
        "elementwise-add-self", lambda x: x + x, lambda x: reference.elementwise(lambda v: 2 * v, x),
        lambda t, x: x + x, normal((4, 3)),
    ),
    Case(
        "elementwise-scalars", lambda x: 1 - 2 / (x + 3), lambda x: reference.elementwise(lambda v: 1 - 2 / (v + 3), x),
        lambda t, x: 1 - 2 / (x + 3), positive((4, 3)), "function", "function",
    ),
]  # fmt: skip


def reduction(name: str, dim: Any, keepdim: bool) -> Case:
    axes = range(3) if dim is None else [d % 3 for d in (dim if isinstance(dim, tuple) else (dim,))]
    naive = reference.sum_over if name == "sum" else reference.mean_over
    return Case(
        f"reduce-{name}-{dim}-{keepdim}".replace(" ", ""), lambda x: getattr(ops, name)(x, dim, keepdim),
        lambda x: naive(x, axes, keepdim), lambda t, x: getattr(t, name)(x, dim, keepdim),
        normal((4, 3, 5)), "sum", "exact" if name == "sum" else "rounded",
    )  # fmt: skip


def largest(dim: int, keepdim: bool) -> Case:
    def naive(x: np.ndarray) -> np.ndarray:
        values = reference.max_along(x, dim)[0]
        return np.expand_dims(values, dim) if keepdim else values

    return Case(
        f"reduce-max-{dim}-{keepdim}", lambda x: ops.max(x, dim, keepdim).values, naive,
        lambda t, x: t.max(x, dim, keepdim).values, away((4, 3, 5)), batched=() if dim == 0 else (0,),
    )  # fmt: skip


REDUCE = [
    *(reduction(*args) for args in product(("sum", "mean"), (None, 0, 1, -1, (0, 2), (1, 2)), (False, True))),
    *(largest(dim, keepdim) for dim, keepdim in product((0, 1, -1), (False, True))),
    Case(
        "reduce-max-all", ops.max, lambda x: np.asarray(max(x.ravel().tolist())), lambda t, x: t.max(x),
        away((4, 3, 5)), batched=(),
    ),
    Case("reduce-sum-number", ops.sum, lambda x: x, lambda t, x: t.sum(x), normal(()), batched=()),
]  # fmt: skip


def rearrangement(name: str, op: Any, naive: Any, torch: Any = None, batched: tuple[int, ...] = (0,)) -> Case:
    return Case(
        f"shape-{name}", op, naive, torch or (lambda t, x: op(x)), normal((4, 3, 5)), batched=batched
    )  # fmt: skip


def indexing(name: str, *where: Any) -> Case:
    full = where + (slice(None),) * (3 - len([w for w in where if w is not None]))
    return rearrangement(
        f"index-{name}", lambda x: x[where], lambda x: np.array(reference.pick(x.tolist(), full)), batched=()
    )


SHAPE = [
    rearrangement("reshape", lambda x: x.reshape(4, -1), lambda x: reference.reshape(x, len(x), 15), batched=()),
    rearrangement("reshape-all", lambda x: x.reshape((5, 12)), lambda x: reference.reshape(x, 5, 12), batched=()),
    rearrangement("flatten", lambda x: x.flatten(), lambda x: reference.reshape(x, x.size)),
    rearrangement("flatten-1", lambda x: x.flatten(1), lambda x: reference.reshape(x, len(x), 15)),
    rearrangement("flatten-0-1", lambda x: x.flatten(0, 1), lambda x: reference.reshape(x, len(x) * 3, 5)),
    rearrangement("permute-cycle", lambda x: x.permute(2, 0, 1), lambda x: reference.permute(x, 2, 0, 1)),
    rearrangement("permute-last", lambda x: x.permute(0, -1, 1), lambda x: reference.permute(x, 0, 2, 1)),
    rearrangement("transpose", lambda x: x.transpose(0, -1), lambda x: reference.permute(x, 2, 1, 0)),
    rearrangement("T", lambda x: x.T, lambda x: reference.permute(x, 2, 1, 0), lambda t, x: x.permute(2, 1, 0)),
    indexing("number", 1),
    indexing("last", slice(None), -1),
    indexing("slice", slice(1, 3), slice(None), slice(None, None, 2)),
    indexing("new-axis", None, 2, slice(0, 2)),
    rearrangement("index-dots", lambda x: x[..., 2], lambda x: x[:, :, 2].copy(), batched=()),
    rearrangement("index-number-number", lambda x: x[0, 1, 2], lambda x: np.asarray(x[0, 1, 2]), batched=()),
]  # fmt: skip


def product_of(name: str, *shapes: tuple[int, ...], batched: tuple[int, ...] = (0,)) -> Case:
    return Case(
        f"linear-matmul-{name}", ops.matmul, reference.matmul, lambda t, a, b: t.matmul(a, b),
        normal(*shapes), "gemm", "gemm", batched=batched,
    )  # fmt: skip


def affine(name: str, *shapes: tuple[int, ...]) -> Case:
    return Case(
        f"linear-linear-{name}", ops.linear, reference.linear, lambda t, *a: t.nn.functional.linear(*a),
        normal(*shapes), "gemm", "gemm",
    )  # fmt: skip


LINEAR = [
    product_of("matrices", (4, 3), (3, 5)),
    product_of("square", (4, 4), (4, 4)),
    product_of("row", (3,), (3, 5), batched=()),
    product_of("column", (4, 3), (3,)),
    product_of("vectors", (5,), (5,), batched=()),
    product_of("batch", (2, 4, 3), (2, 3, 5), batched=(0, 1)),
    product_of("repeated", (2, 4, 3), (3, 5)),
    product_of("repeated-left", (4, 3), (2, 3, 5), batched=(1,)),
    product_of("broadcast", (2, 1, 4, 3), (3, 3, 2)),
    affine("bias", (4, 3), (5, 3), (5,)),
    affine("no-bias", (4, 3), (5, 3)),
    affine("one-row", (1, 3), (5, 3), (5,)),
    affine("sequence", (2, 4, 3), (5, 3), (5,)),
    affine("vector", (3,), (3, 3), (3,)),
]
LINEAR[-1] = Case(**{**vars(LINEAR[-1]), "batched": ()})


def convolution(name: str, x: Any, w: Any, stride: Any = 1, padding: Any = 0, bias: bool = False) -> Case:
    both = [(v, v) if isinstance(v, int) else v for v in (stride, padding)]
    return Case(
        f"conv-{name}", lambda x, w, b=None: ops.conv2d(x, w, b, stride, padding),
        lambda x, w, b=None: reference.conv2d(x, w, b, *both),
        lambda t, x, w, b=None: t.nn.functional.conv2d(x, w, b, stride, padding),
        normal(x, w, *([(w[3],)] if bias else [])), "gemm", "gemm", axes=(NCHW, OIHW), out=NCHW,
    )  # fmt: skip


CONV = [
    convolution("3x3", (2, 5, 4, 2), (3, 3, 2, 3), 1, 1),
    convolution("3x3-bias", (2, 5, 4, 2), (3, 3, 2, 3), 1, 1, bias=True),
    convolution("square-channels", (2, 4, 5, 3), (3, 3, 3, 3), 1, 1),
    convolution("3x3-stride-2", (2, 5, 7, 2), (3, 3, 2, 2), 2, 1),
    convolution("even-kernel", (2, 5, 6, 2), (2, 4, 2, 2), 1, 1, bias=True),
    convolution("even-kernel-stride-2", (2, 6, 5, 2), (4, 2, 2, 2), 2, (2, 1)),
    convolution("stride-leaves-rest", (2, 6, 8, 2), (3, 3, 2, 2), 2, 0),
    convolution("stride-3-leaves-rest", (1, 8, 9, 2), (2, 2, 2, 3), 3, 0),
    convolution("stride-pair", (2, 7, 5, 2), (3, 3, 2, 2), (3, 1), 1),
    convolution("padding-pair", (2, 4, 3, 2), (3, 2, 2, 3), 1, (2, 0)),
    convolution("stride-over-kernel", (2, 7, 6, 2), (1, 2, 2, 3), (3, 2), 0),
    convolution("one-image", (1, 5, 4, 3), (3, 3, 3, 2), 1, 1, bias=True),
    convolution("1x1", (2, 3, 4, 3), (1, 1, 3, 4), 1, 0, bias=True),
    convolution("1x1-stride-2", (2, 5, 4, 3), (1, 1, 3, 4), 2, 0),
    convolution("kernel-is-image", (3, 4, 3, 2), (4, 3, 2, 5), 1, 0, bias=True),
    convolution("wide-padding", (1, 3, 2, 2), (3, 3, 2, 2), 2, 3),
    convolution("one-channel", (2, 5, 4, 1), (3, 3, 1, 1), 1, 1),
]

MEAN, VARIANCE = np.linspace(-1, 1, 5), np.linspace(0.5, 2, 5)


def normalised(name: str, shape: tuple[int, ...], training: bool = True, add: bool = False, relu: bool = False,
               eps: float = 1e-5) -> Case:  # fmt: skip
    """Batch norm, with its residual addition and ReLU; drawn anew until no sum is near ReLU's kink."""
    c = shape[-1]
    statistics = (None, None) if training else (MEAN[:c], VARIANCE[:c])

    def op(x: Any, gamma: Any, beta: Any, z: Any = None) -> Any:
        running = (None if s is None else Tensor(s.astype(x.dtype)) for s in statistics)
        return ops.batch_norm(x, *running, gamma, beta, training, eps=eps, add=z, relu=relu)

    def before(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, z: Any = None) -> np.ndarray:
        y = reference.batch_norm(x, gamma, beta, *statistics, eps)
        return y if z is None else reference.elementwise(operator.add, y, z)

    def naive(*arrays: Any) -> np.ndarray:
        return reference.elementwise(lambda v: max(v, 0.0) if relu else v, before(*arrays))

    def torch(t: Any, x: Any, gamma: Any, beta: Any, z: Any = None) -> Any:
        running = (None if s is None else t.from_numpy(s) for s in statistics)
        y = t.nn.functional.batch_norm(x, *running, gamma, beta, training, eps=eps)
        y = y if z is None else y + z
        return t.relu(y) if relu else y

    def make(rng: np.random.Generator) -> Arrays:
        while True:
            arrays = [rng.standard_normal(s) for s in (shape, (c,), (c,), *([shape] if add else []))]
            if not relu or np.min(np.abs(before(*arrays))) > 0.01:
                return arrays

    axes = (0, len(shape) - 1, *range(1, len(shape) - 1))
    return Case(
        f"norm-{name}", op, naive, torch, make, "norm", "norm norm_sum norm_sum norm",
        axes=(axes, None, None, axes), out=axes, batched=(0, 3) if add else (0,),
    )  # fmt: skip


NORM = [
    normalised("train", (2, 3, 4, 5)),
    normalised("train-one-image", (1, 3, 4, 5)),
    normalised("train-one-channel", (2, 3, 4, 1)),
    normalised("train-matrix", (7, 5)),
    normalised("train-sequence", (3, 4, 5)),
    # a large eps: with 1e-5, the values of two points are steps to finite differences
    normalised("train-two-values", (2, 1, 1, 3), eps=0.1),
    normalised("train-relu", (2, 3, 2, 3), relu=True),
    normalised("train-add", (2, 3, 2, 3), add=True),
    normalised("train-add-relu", (2, 3, 2, 3), add=True, relu=True),
    normalised("eval", (2, 3, 4, 5), training=False),
    normalised("eval-one-value", (1, 1, 1, 5), training=False),
    normalised("eval-add-relu", (2, 3, 2, 3), training=False, add=True, relu=True),
]


def pooling(name: str, kind: str, x: Any, kernel: Any, stride: Any = None, padding: Any = 0, **settings: Any) -> Case:
    both = [(v, v) if isinstance(v, int) else v for v in (kernel, kernel if stride is None else stride, padding)]
    function, value = f"{kind}_pool2d", "exact" if kind == "max" else "sum"
    return Case(
        f"pool-{kind}-{name}", lambda x: getattr(ops, function)(x, kernel, stride, padding, **settings),
        lambda x: getattr(reference, function)(x, *both, **settings),
        lambda t, x: getattr(t.nn.functional, function)(x, kernel, stride, padding, **settings),
        away(x), value, "sum", axes=(NCHW,), out=NCHW,
    )  # fmt: skip


def everywhere(x: Any) -> Case:
    return Case(
        f"pool-global-{x[1]}x{x[2]}", lambda x: ops.adaptive_avg_pool2d(x, 1),
        lambda x: reference.mean_over(x, (1, 2), True), lambda t, x: t.nn.functional.adaptive_avg_pool2d(x, 1),
        normal(x), "sum", "rounded", axes=(NCHW,), out=NCHW,
    )  # fmt: skip


WINDOWS: dict[str, Any] = {
    "2x2": ((2, 4, 6, 2), 2),
    "resnet": ((2, 7, 6, 2), 3, 2, 1),
    "overlap": ((2, 5, 4, 2), 3, 1, 1),
    "even-overlap": ((1, 5, 6, 2), (2, 4), (1, 2), (1, 2)),
    "leaves-rest": ((2, 7, 8, 1), (3, 2), (3, 3)),
    "stride-over-kernel": ((2, 7, 6, 2), 1, (3, 2)),
    "whole-image": ((3, 4, 3, 2), (4, 3)),
}
POOL = [
    *(pooling(name, kind, *args) for kind in ("max", "avg") for name, args in WINDOWS.items()),
    pooling("padding-uncounted", "avg", (2, 5, 4, 2), 3, 2, 1, count_include_pad=False),
    everywhere((3, 4, 3, 2)),
    everywhere((2, 1, 1, 3)),
]

LABELS = np.array([0, 4, 2, 2])


def soft(name: str, dim: int) -> Case:
    return Case(
        f"loss-{name}-{dim}", lambda z: getattr(ops, name)(z, dim),
        lambda z: getattr(reference, name)(z, dim), lambda t, z: getattr(t, name)(z, dim),
        normal((4, 3, 5)), "softmax", "softmax", batched=(0,),
    )  # fmt: skip


def scored(name: str, reduction: str) -> Case:
    function = "nll_loss" if name == "nll" else name
    exact = name == "nll" and reduction != "mean"
    return Case(
        f"loss-{name}-{reduction}", lambda z, t: getattr(ops, function)(z, t, reduction=reduction),
        lambda z, t: getattr(reference, name)(z, t, reduction),
        lambda torch, z, t: getattr(torch.nn.functional, function)(z, t, reduction=reduction),
        lambda rng: [rng.standard_normal((4, 5)), LABELS], "cross_entropy", "exact" if exact else "cross_entropy",
        batched=(0, 1),
    )  # fmt: skip


LOSS = [
    *(soft(name, dim) for name, dim in product(("softmax", "log_softmax"), (-1, 1, 0))),
    *(scored(name, reduction) for name, reduction in product(("nll", "cross_entropy"), ("mean", "sum", "none"))),
]

CASES = [*ELEMENTWISE, *REDUCE, *SHAPE, *LINEAR, *CONV, *NORM, *POOL, *LOSS]
BY_NAME = {case.name: case for case in CASES}
FAMILIES = ("elementwise", "reduce", "shape", "linear", "conv", "norm", "pool", "loss")
