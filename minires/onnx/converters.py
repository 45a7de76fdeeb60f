"""For each Function the ONNX nodes that compute the same. ONNX's operators: https://onnx.ai/onnx/operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..autograd import Function
from ..kernels import ConvGeometry
from ..nn.module import OIHW_FROM_HWIO
from ..ops import activation, conv, dtypes, elementwise, loss, norm, pool, reduce, shape
from ..ops.index import Index
from ..ops.linear import Linear, MatMul
from ..tensor import Tensor
from .graph import IMAGES, Graph, Value, plain, refused

Converter = Callable[..., Value]  # of the graph, the Function, its output and its inputs
FIRST, LAST = -(2**63), 2**63 - 1  # the ends of any axis, for Slice

CONVERTERS: dict[type[Function], Converter] = {}


def converts(function: type[Function]) -> Callable[[Converter], Converter]:
    """Register how a Function becomes nodes."""

    def register(converter: Converter) -> Converter:
        CONVERTERS[function] = converter
        return converter

    return register


def _window(geometry: ConvGeometry, kernel_size: tuple[int, ...]) -> dict[str, Any]:
    top, bottom, left, right = geometry.padding
    return {"kernel_shape": kernel_size, "strides": geometry.stride, "pads": (top, left, bottom, right)}


# Convolution, norms, pooling


@converts(conv.Conv2d)
def _conv(g: Graph, f: conv.Conv2d, y: Tensor, x: Any, w: Any, b: Any, z: Any = None) -> Value:
    inputs = [g.images(x), g.ordered(g.value(w), OIHW_FROM_HWIO), *([] if b is None else [g.value(b).name])]
    settings = _window(f.geometry, w.shape[:2]) | {"dilations": f.geometry.dilation, "group": f.geometry.groups}
    return g.finish(g.node("Conv", *inputs, **settings), y, z, f.relu)


@converts(conv.ConvTranspose2d)
def _conv_transpose(g: Graph, f: conv.ConvTranspose2d, y: Tensor, x: Any, w: Any, b: Any) -> Value:
    size, kernel, geometry = x.shape[1:3], w.shape[:2], f.geometry
    (top, bottom, left, right), extent = geometry.padding, geometry.extent(w.shape[:2])
    steps = zip(size, geometry.stride, extent, (top + bottom, left + right), f.output_size, strict=True)
    rest = [wanted - ((n - 1) * stride + high - pads) for n, stride, high, pads, wanted in steps]
    inputs = [g.images(x), g.ordered(g.value(w), OIHW_FROM_HWIO), *([] if b is None else [g.value(b).name])]
    if any(n >= stride for n, stride in zip(rest, geometry.stride, strict=True)):
        raise refused(g.layer, f"{f!r}: ONNX has output_padding less than the stride only")
    settings = _window(geometry, kernel) | {"dilations": geometry.dilation, "group": geometry.groups}
    return Value(g.node("ConvTranspose", *inputs, output_padding=rest, **settings), y.shape, IMAGES)


@converts(norm.BatchNormEval)
def _batch_norm(g: Graph, f: norm.BatchNormEval, y: Tensor, x: Any, *others: Any) -> Value:
    if y.ndim not in (2, 4):
        raise refused(g.layer, f"batch_norm of shape {y.shape}: only (N, C) and images (N, H, W, C) are exported")
    order = IMAGES if y.ndim == 4 else plain(2)
    *vectors, z = (*others, None)[:5]
    name = g.node(
        "BatchNormalization", g.ordered(g.value(x), order), *(g.value(v).name for v in vectors), epsilon=f.eps
    )
    return g.finish(name, y, z, f.relu)


@converts(norm.GroupNorm)
def _group_norm(g: Graph, f: norm.GroupNorm, y: Tensor, x: Any, gamma: Any, beta: Any) -> Value:
    """By its formula: ONNX's own GroupNormalization has other weights before opset 21."""
    value, dtype, axes = g.value(x), y.dtype, g.ints(1, 3)
    parts = g.node("Reshape", g.plain(value), g.ints(-1, *f.view[1:]))
    centred = g.node("Sub", parts, g.node("ReduceMean", parts, axes))
    variance = g.node("ReduceMean", g.node("Mul", centred, centred), axes)
    deviation = g.node("Sqrt", g.node("Add", variance, g.constant(np.asarray(f.eps, dtype))))
    name = g.node("Reshape", g.node("Div", centred, deviation), g.ints(-1, *y.shape[1:]))
    name = g.node("Add", g.node("Mul", name, g.value(gamma).name), g.value(beta).name)
    return Value(g.ordered(Value(name, y.shape, plain(y.ndim)), value.order), y.shape, value.order)


def _padded(g: Graph, name: str, padding: tuple[int, ...], *value: str) -> str:
    top, bottom, left, right = padding
    return g.node("Pad", name, g.ints(0, 0, top, left, 0, 0, bottom, right), *value)


@converts(pool.MaxPool2d)
def _max_pool(g: Graph, f: pool.MaxPool2d, y: Tensor, x: Any) -> Value:
    name, geometry, (height, width) = g.images(x), f.geometry, f.kernel_size
    if any(p >= n for p, n in zip(geometry.padding, (height, height, width, width), strict=True)):
        lowest = g.constant(np.asarray(-np.inf, y.dtype))  # onnxruntime has less padding than kernel, also if dilated
        name = _padded(g, name, geometry.padding, lowest)
        geometry = replace(geometry, padding=(0, 0, 0, 0))
    settings = _window(geometry, f.kernel_size) | {"dilations": geometry.dilation}
    return Value(g.node("MaxPool", name, **settings), y.shape, IMAGES)


@converts(pool.AvgPool2d)
def _avg_pool(g: Graph, f: pool.AvgPool2d, y: Tensor, x: Any) -> Value:
    name, geometry, counted = g.images(x), f.geometry, f.counted
    if any(counted) and counted != geometry.padding:  # ceil_mode: zeros that count, and beyond them places that do not
        name = _padded(g, name, counted)
        rest: Any = tuple(p - c for p, c in zip(geometry.padding, counted, strict=True))
        geometry, counted = replace(geometry, padding=rest), (0, 0, 0, 0)
    settings = _window(geometry, f.kernel_size) | {"count_include_pad": int(any(counted))}
    return Value(g.node("AveragePool", name, **settings), y.shape, IMAGES)


def _adaptive_pool(op: str) -> Converter:
    def convert(g: Graph, f: Any, y: Tensor, x: Any) -> Value:
        size = x.shape[1:3]
        if any(n % m for n, m in zip(size, f.output_size, strict=True)):
            raise refused(g.layer, f"{f!r} on {size[0]}x{size[1]}: ONNX has windows of one size, which must divide")
        kernel = tuple(n // m for n, m in zip(size, f.output_size, strict=True))
        return Value(g.node(op, g.images(x), kernel_shape=kernel, strides=kernel), y.shape, IMAGES)

    return convert


CONVERTERS[pool.AdaptiveAvgPool2d] = _adaptive_pool("AveragePool")
CONVERTERS[pool.AdaptiveMaxPool2d] = _adaptive_pool("MaxPool")


# Products


@converts(Linear)
def _linear(g: Graph, f: Linear, y: Tensor, x: Any, w: Any, b: Any) -> Value:
    name, weight = g.plain(g.value(x)), g.plain(g.value(w))
    bias = [] if b is None else [g.plain(g.value(b))]
    if y.ndim == 2:
        return Value(g.node("Gemm", name, weight, *bias, transB=1), y.shape, plain(2))
    name = g.node("MatMul", name, g.node("Transpose", weight, perm=(1, 0)))
    return Value(g.node("Add", name, *bias) if bias else name, y.shape, plain(y.ndim))


@converts(MatMul)
def _matmul(g: Graph, f: MatMul, y: Tensor, a: Any, b: Any) -> Value:
    return Value(g.node("MatMul", g.plain(g.value(a)), g.plain(g.value(b))), y.shape, plain(y.ndim))


# Element by element


def _elementwise(op: str, settings: Callable[[Any], dict[str, Any]] = lambda f: {}) -> Converter:
    def convert(g: Graph, f: Any, y: Tensor, *inputs: Any) -> Value:
        names, order = g.together(y, *inputs)
        return Value(g.node(op, *names, **settings(f)), y.shape, order)

    return convert


CONVERTERS |= {
    activation.ReLU: _elementwise("Relu"),
    activation.LeakyReLU: _elementwise("LeakyRelu", lambda f: {"alpha": f.slope}),
    activation.Sigmoid: _elementwise("Sigmoid"),
    activation.Tanh: _elementwise("Tanh"),
    activation.GELU: _elementwise("Gelu", lambda f: {"approximate": f.approximate}),
    elementwise.Add: _elementwise("Add"),
    elementwise.Sub: _elementwise("Sub"),
    elementwise.Mul: _elementwise("Mul"),
    elementwise.Div: _elementwise("Div"),
    elementwise.Pow: _elementwise("Pow"),
    elementwise.Maximum: _elementwise("Max"),
    elementwise.Minimum: _elementwise("Min"),
    elementwise.Abs: _elementwise("Abs"),
    elementwise.Neg: _elementwise("Neg"),
    elementwise.Exp: _elementwise("Exp"),
    elementwise.Log: _elementwise("Log"),
    elementwise.Sqrt: _elementwise("Sqrt"),
}


@converts(activation.SiLU)
def _silu(g: Graph, f: activation.SiLU, y: Tensor, x: Any) -> Value:
    value = g.value(x)
    return value._replace(name=g.node("Mul", value.name, g.node("Sigmoid", value.name)))


@converts(elementwise.Clip)
def _clip(g: Graph, f: elementwise.Clip, y: Tensor, x: Any) -> Value:
    value = g.value(x)
    bounds = ["" if v is None else g.constant(np.asarray(v, y.dtype)) for v in (f.min, f.max)]
    return value._replace(name=g.node("Clip", value.name, *bounds))


@converts(dtypes.Cast)
def _cast(g: Graph, f: dtypes.Cast, y: Tensor, x: Any) -> Value:
    from onnx import helper

    value = g.value(x)
    return value._replace(name=g.node("Cast", value.name, to=helper.np_dtype_to_tensor_dtype(np.dtype(f.dtype))))


# Along axes


def _along(op: str) -> Converter:
    def convert(g: Graph, f: Any, y: Tensor, x: Any) -> Value:
        value = g.value(x)
        return value._replace(name=g.node(op, value.name, axis=value.axis(f.axis)))

    return convert


def _reduction(op: str) -> Converter:
    def convert(g: Graph, f: Any, y: Tensor, x: Any) -> Value:
        value = g.value(x)
        if op == "ReduceMean" and value.order == IMAGES and (f.axes, f.keepdim) == ((1, 2), True):
            return Value(g.node("GlobalAveragePool", value.name), y.shape, IMAGES)
        if not f.keepdim and [a for a in value.order if a not in f.axes] != sorted(set(value.order) - set(f.axes)):
            value = Value(g.plain(value), value.shape, plain(x.ndim))
        if not f.axes:  # of a number; no axes at all would be all axes
            return value
        axes = g.ints(*sorted(value.axis(axis) for axis in f.axes))
        name = g.node(op, value.name, axes, keepdims=int(f.keepdim))
        return Value(name, y.shape, value.order if f.keepdim else plain(y.ndim))

    return convert


CONVERTERS |= {
    loss.Softmax: _along("Softmax"),
    loss.LogSoftmax: _along("LogSoftmax"),
    reduce.Mean: _reduction("ReduceMean"),
    reduce.Sum: _reduction("ReduceSum"),
    reduce.AMax: _reduction("ReduceMax"),
    reduce.AMin: _reduction("ReduceMin"),
    reduce.LogSumExp: _reduction("ReduceLogSumExp"),
}


# Shapes


@converts(shape.Reshape)
def _reshape(g: Graph, f: shape.Reshape, y: Tensor, x: Any) -> Value:
    """The first size is what the others leave: that of the batch."""
    value = g.value(x)
    kept = [axis for axis in value.order if value.shape[axis] != 1]
    name = value.name if kept == sorted(kept) else g.plain(value)  # a map of 1x1 has its elements in both orders alike
    return Value(g.node("Reshape", name, g.ints(*(-1, *f.shape[1:])[: len(f.shape)])), y.shape, plain(y.ndim))


@converts(shape.Permute)
def _permute(g: Graph, f: shape.Permute, y: Tensor, x: Any) -> Value:
    return Value(g.ordered(g.value(x), f.order), y.shape, plain(y.ndim))


@converts(shape.Expand)
def _expand(g: Graph, f: shape.Expand, y: Tensor, x: Any) -> Value:
    sizes = (0,) * (y.ndim - x.ndim) + x.shape
    repeated = [1 if size == old else size for size, old in zip(f.shape, sizes, strict=True)]
    return Value(g.node("Expand", g.plain(g.value(x)), g.ints(*repeated)), y.shape, plain(y.ndim))


@converts(shape.Concatenate)
def _concatenate(g: Graph, f: shape.Concatenate, y: Tensor, *inputs: Any) -> Value:
    names, order = g.together(y, *inputs)
    return Value(g.node("Concat", *names, axis=order.index(f.axis)), y.shape, order)


@converts(shape.Pad)
def _pad(g: Graph, f: shape.Pad, y: Tensor, x: Any) -> Value:
    value = g.value(x)
    pads = [f.pads[axis] for axis in value.order]
    amounts = g.ints(*(before for before, _ in pads), *(after for _, after in pads))
    name = g.node("Pad", value.name, amounts, g.constant(np.asarray(f.value, y.dtype)))
    return Value(name, y.shape, value.order)


@converts(Index)
def _index(g: Graph, f: Index, y: Tensor, x: Any) -> Value:
    """Slices as one Slice; a number is a slice of one that is squeezed out, None an axis that is put in."""
    value, place = g.value(x), list(f.place)
    named = sum(part is not None and part is not Ellipsis for part in place)
    dots = place.index(Ellipsis) if Ellipsis in place else len(place)
    place[dots : dots + 1] = [slice(None)] * (x.ndim - named)
    if any(not isinstance(part, slice) for part in place):
        value = Value(g.plain(value), value.shape, plain(x.ndim))
    parts = [part for part in place if part is not None]
    cut = {axis: _slice(part) for axis, part in enumerate(parts) if part != slice(None)}
    name = value.name
    if cut:
        starts, stops, steps = zip(*cut.values(), strict=True)
        axes = [value.axis(axis) for axis in cut]
        name = g.node("Slice", name, g.ints(*starts), g.ints(*stops), g.ints(*axes), g.ints(*steps))
    numbers = [axis for axis, part in enumerate(parts) if not isinstance(part, slice)]
    if numbers:
        name = g.node("Squeeze", name, g.ints(*numbers))
    new = [axis for axis, part in enumerate(p for p in place if p is None or isinstance(p, slice)) if part is None]
    if new:
        name = g.node("Unsqueeze", name, g.ints(*new))
    return Value(name, y.shape, value.order if len(value.order) == y.ndim and not new else plain(y.ndim))


def _slice(part: Any) -> tuple[int, int, int]:
    if not isinstance(part, slice):
        return int(part), int(part) + 1 if part != -1 else LAST, 1
    step = 1 if part.step is None else int(part.step)
    start, stop = (0, LAST) if step > 0 else (LAST, FIRST)
    return start if part.start is None else int(part.start), stop if part.stop is None else int(part.stop), step
