"""What runs in place of each ONNX operator, on images kept as (N, H, W, C), which the file has as (N, C, H, W)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import ShapeError
from ..ops.checks import window
from ..ops.pool import AvgPool2d, MaxPool2d
from .graph import plain

STORED = 0, 2, 3, 1  # which axis of (N, C, H, W) is each of (N, H, W, C)


class Value(NamedTuple):
    """A tensor, and for each of its axes which of ONNX's it is."""

    tensor: Any
    order: tuple[int, ...]

    def axis(self, axis: int) -> int:
        """An axis of ONNX, counted as in the tensor."""
        if not -len(self.order) <= axis < len(self.order):
            raise ShapeError(f"axis {axis} of a tensor with {len(self.order)}")
        return self.order.index(axis % len(self.order))

    def ordered(self, order: Sequence[int]) -> Any:
        """The tensor with its axes in another order."""
        moved = [self.order.index(axis) for axis in order]
        return self.tensor if moved == sorted(moved) else ops.permute(self.tensor, moved)

    @property
    def plain(self) -> Any:
        """The tensor with its axes as in the file."""
        return self.ordered(plain(len(self.order)))

    @property
    def images(self) -> Any:
        """The tensor as images (N, H, W, C)."""
        if len(self.order) != 4:
            raise ShapeError(f"images (N, H, W, C) expected, not a tensor of shape {self.tensor.shape}")
        return self.ordered(STORED)


def of_images(tensor: Any) -> Value:
    return Value(tensor, STORED)


def of_plain(tensor: Any) -> Value:
    return Value(tensor, plain(tensor.ndim))


@dataclass(frozen=True)
class Operator:
    """A function of Values, of the attributes, and of the inputs that must be constant."""

    run: Callable[..., Value]
    constants: dict[int, str] = field(default_factory=dict)  # inputs that are settings here, by their place
    settings: dict[str, Any] = field(default_factory=dict)  # attributes, and what they are if not given


OPERATORS: dict[str, Operator] = {}


def operator(name: str, **constants: int) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """Register a function as an operator. `constants` are the places of inputs that it takes by name."""

    def register(run: Callable[..., Value]) -> Callable[..., Value]:
        parameters = inspect.signature(run).parameters.values()
        settings = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        OPERATORS[name] = Operator(run, {place: constant for constant, place in constants.items()}, settings)
        return run

    return register


# Element by element


def _together(*values: Value) -> tuple[list[Any], tuple[int, ...]]:
    """Tensors that broadcast as the file has them, all in the order of the first that is moved, and that order."""
    ndim = max(len(v.order) for v in values)
    moved = (v.order for v in values if len(v.order) == ndim and v.order != plain(ndim))
    order = next(moved, plain(ndim))
    tensors = []
    for v in values:
        missing = ndim - len(v.order)
        if missing and v.order and order != plain(ndim):
            v = of_plain(ops.reshape(v.plain, (1,) * missing + v.plain.shape))
        tensors.append(v.ordered(order) if len(v.order) == ndim else v.plain)
    return tensors, order


def _elementwise(name: str, op: Callable[..., Any]) -> None:
    def run(*values: Value) -> Value:
        tensors, order = _together(*values)
        if len(values) == 1:
            return Value(tensors[0] if name in ("Max", "Min") else op(*tensors), order)
        return Value(functools.reduce(op, tensors), order)

    operator(name)(run)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Relu": ops.relu, "Sigmoid": ops.sigmoid, "Tanh": ops.tanh, "Abs": ops.abs, "Neg": ops.neg, "Exp": ops.exp,
    "Log": ops.log, "Sqrt": ops.sqrt, "Add": ops.add, "Sub": ops.sub, "Mul": ops.mul, "Div": ops.div, "Pow": ops.pow,
    "Max": ops.maximum, "Min": ops.minimum,
}  # fmt: skip
for _name, _op in _ELEMENTWISE.items():
    _elementwise(_name, _op)


@operator("LeakyRelu")
def _leaky_relu(x: Value, *, alpha: float = 0.01) -> Value:
    return x._replace(tensor=ops.leaky_relu(x.tensor, alpha))


@operator("Gelu")
def _gelu(x: Value, *, approximate: str = "none") -> Value:
    return x._replace(tensor=ops.gelu(x.tensor, approximate))


@operator("Clip", min=1, max=2)
def _clip(x: Value, *, min: Any = None, max: Any = None) -> Value:
    bounds = [None if v is None else v.item() for v in (min, max)]
    return x if bounds == [None, None] else x._replace(tensor=ops.clip(x.tensor, *bounds))


@operator("Identity")
def _identity(x: Value) -> Value:
    return x


@operator("Cast")
def _cast(x: Value, *, to: int) -> Value:
    from onnx import helper

    return x._replace(tensor=ops.cast(x.tensor, helper.tensor_dtype_to_np_dtype(to)))


# Products and pooling; convolution, batch norm and Gemm are layers


@operator("MatMul")
def _matmul(a: Value, b: Value) -> Value:
    return of_plain(ops.matmul(a.plain, b.plain))


def _window(x: Any, kernel_shape: Any, settings: dict[str, Any]) -> Any:
    padding = padding_of(settings.pop("auto_pad"), settings.pop("pads"))
    strides, dilations = settings.pop("strides") or (1, 1), settings.pop("dilations", None) or (1, 1)
    ceil_mode = bool(settings.pop("ceil_mode", 0))
    kernel = kernel_shape[0], kernel_shape[1]
    return window("onnx pooling", x, kernel, tuple(strides), padding, tuple(dilations), 1, ceil_mode)


def padding_of(auto_pad: str, pads: Sequence[int] | None) -> Any:
    """ONNX's padding as minires has it: "same", or ((top, bottom), (left, right))."""
    if auto_pad != "NOTSET":
        return "same" if auto_pad == "SAME_UPPER" else "valid"
    top, left, bottom, right = pads or (0, 0, 0, 0)
    return (top, bottom), (left, right)


@operator("MaxPool")
def _max_pool(
    x: Value, *, kernel_shape: Any, strides: Any = None, pads: Any = None, dilations: Any = None,
    auto_pad: str = "NOTSET", ceil_mode: int = 0, storage_order: int = 0,
) -> Value:  # fmt: skip
    settings = {"strides": strides, "pads": pads, "dilations": dilations, "auto_pad": auto_pad, "ceil_mode": ceil_mode}
    images = x.images
    return of_images(MaxPool2d(tuple(kernel_shape), _window(images, kernel_shape, settings))(images))


@operator("AveragePool")
def _average_pool(
    x: Value, *, kernel_shape: Any, strides: Any = None, pads: Any = None, dilations: Any = None,
    auto_pad: str = "NOTSET", ceil_mode: int = 0, count_include_pad: int = 0,
) -> Value:  # fmt: skip
    settings = {"strides": strides, "pads": pads, "dilations": dilations, "auto_pad": auto_pad, "ceil_mode": ceil_mode}
    images = x.images
    geometry = _window(images, kernel_shape, settings)
    top, left, bottom, right = pads or (0, 0, 0, 0)
    given = geometry.padding if auto_pad == "SAME_UPPER" else (top, bottom, left, right)
    counted = given if count_include_pad else (0, 0, 0, 0)
    return of_images(AvgPool2d(tuple(kernel_shape), geometry, counted)(images))


@operator("GlobalAveragePool")
def _global_average_pool(x: Value) -> Value:
    return of_images(ops.mean(x.images, (1, 2), keepdim=True))


@operator("GlobalMaxPool")
def _global_max_pool(x: Value) -> Value:
    return of_images(ops.adaptive_max_pool2d(x.images, 1))


# Along axes


def _reduction(name: str, op: Callable[..., Any]) -> None:
    def run(x: Value, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        named = range(len(x.order)) if axes is None else [int(axis) for axis in axes]
        own = tuple(sorted(x.axis(axis) for axis in named))
        rest = [axis for i, axis in enumerate(x.order) if i not in own]
        if not keepdims and rest != sorted(rest):
            x, own = of_plain(x.plain), tuple(axis % len(x.order) for axis in named)
        y = op(x.tensor, own, keepdim=bool(keepdims))
        return Value(y, x.order) if keepdims else of_plain(y)

    operator(name, axes=1)(run)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": ops.mean, "ReduceSum": ops.sum, "ReduceMax": ops.amax, "ReduceMin": ops.amin,
    "ReduceLogSumExp": ops.logsumexp,
}  # fmt: skip
for _name, _op in _REDUCTIONS.items():
    _reduction(_name, _op)


@operator("Softmax")
def _softmax(x: Value, *, axis: int = -1) -> Value:
    return x._replace(tensor=ops.softmax(x.tensor, x.axis(axis)))


@operator("LogSoftmax")
def _log_softmax(x: Value, *, axis: int = -1) -> Value:
    return x._replace(tensor=ops.log_softmax(x.tensor, x.axis(axis)))


# Shapes


def _flat(x: Value) -> Any:
    """The tensor with its elements in the file's order, whatever its shape: of a map of 1x1 nothing need be moved."""
    kept = [axis for axis, size in zip(x.order, x.tensor.shape, strict=True) if size != 1]
    return x.tensor if kept == sorted(kept) else x.plain


def _shape(x: Value) -> tuple[int, ...]:
    """Its sizes in the file's order."""
    return tuple(x.tensor.shape[x.axis(axis)] for axis in range(len(x.order)))


@operator("Reshape", shape=1)
def _reshape(x: Value, *, shape: Any, allowzero: int = 0) -> Value:
    old = _shape(x)
    sizes = [old[i] if size == 0 and not allowzero and i < len(old) else int(size) for i, size in enumerate(shape)]
    return of_plain(ops.reshape(_flat(x), sizes))


@operator("Flatten")
def _flatten(x: Value, *, axis: int = 1) -> Value:
    shape = _shape(x)
    if not -len(shape) <= axis <= len(shape):
        raise ShapeError(f"axis {axis} of a tensor with {len(shape)}")
    first = shape[: axis if axis >= 0 else axis + len(shape)]
    return of_plain(ops.reshape(_flat(x), int(np.prod(first)), -1))


@operator("Squeeze", axes=1)
def _squeeze(x: Value, *, axes: Any = None) -> Value:
    return of_plain(ops.squeeze(x.plain, None if axes is None else tuple(map(int, axes))))


@operator("Unsqueeze", axes=1)
def _unsqueeze(x: Value, *, axes: Any) -> Value:
    ndim = len(x.order) + len(axes)
    new = {range(ndim)[int(axis)] for axis in axes}
    if len(new) != len(axes):
        raise ShapeError(f"axes {[*map(int, axes)]}, of which two are the same")
    sizes = iter(_shape(x))
    return of_plain(ops.reshape(_flat(x), [1 if axis in new else next(sizes) for axis in range(ndim)]))


@operator("Expand", shape=1)
def _expand(x: Value, *, shape: Any) -> Value:
    tensor = x.plain
    return of_plain(ops.expand(tensor, np.broadcast_shapes(tensor.shape, tuple(map(int, shape)))))


@operator("Transpose")
def _transpose(x: Value, *, perm: Any = None) -> Value:
    """Nothing is moved: the axes get other numbers. (N, C, H, W) to (N, H, W, C) is what the tensor is."""
    perm = list(perm if perm is not None else range(len(x.order))[::-1])
    if sorted(perm) != list(plain(len(x.order))):
        raise ShapeError(f"perm {perm} is no order of {len(x.order)} axes")
    return Value(x.tensor, tuple(perm.index(axis) for axis in x.order))


@operator("Concat")
def _concat(*values: Value, axis: int) -> Value:
    tensors, order = _together(*values)
    return Value(ops.concatenate(tensors, Value(None, order).axis(axis)), order)


@operator("Pad", pads=1, value=2, axes=3)
def _pad(x: Value, *, pads: Any, value: Any = None, axes: Any = None, mode: str = "constant") -> Value:
    ndim = len(x.order)
    named = list(range(ndim)) if axes is None else [range(ndim)[int(axis)] for axis in axes]
    around = dict(zip(named, zip(pads[: len(named)], pads[len(named) :], strict=True), strict=True))
    amounts = [int(n) for axis in reversed(x.order) for n in around.get(axis, (0, 0))]
    kind = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[mode]
    given = value.item() if value is not None and mode == "constant" else None
    return x._replace(tensor=ops.pad(x.tensor, amounts, kind, given))


@operator("Slice", starts=1, ends=2, axes=3, steps=4)
def _slice(x: Value, *, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Value:
    place = [slice(None)] * len(x.order)
    named = range(len(starts)) if axes is None else axes
    for axis, start, end, step in zip(named, starts, ends, [1] * len(starts) if steps is None else steps, strict=True):
        place[x.axis(int(axis))] = slice(int(start), int(end), int(step))
    return x._replace(tensor=ops.index(x.tensor, tuple(place)))
