"""An ONNX graph in the making: nodes, constants and weights, and in which order each value has its axes there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..device import to_device
from ..errors import ArgumentError
from ..nn import Parameter
from ..nn.module import OIHW_FROM_HWIO
from ..tensor import Tensor

IMAGES = 0, 3, 1, 2  # the axes of (N, H, W, C) in the order of ONNX, (N, C, H, W)


class Value(NamedTuple):
    """A value of the graph: its name, its shape in minires, and which axis of minires is each of ONNX's."""

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def axis(self, axis: int) -> int:
        """An axis of minires, counted as in ONNX."""
        return self.order.index(axis)


def plain(ndim: int) -> tuple[int, ...]:
    """The order in which nothing is moved."""
    return tuple(range(ndim))


class Graph:
    """Nodes in order. What a converter calls: `value` for its inputs, `node` to add one, `ordered` to move axes.

    `state` are the model's parameters and buffers; those that are used become initializers of the same names, weights
    of convolutions as OIHW.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}
        self.output_shape: list[Any] = []
        self.layer = ""
        self._state = {id(t.data): (name, t) for name, t in reversed(list(state.items()))}  # the first name of several
        self._values: dict[int, Value] = {}  # by the array, which outlives the graph in the trace
        self._names: Counter[str] = Counter()

    def define(self, tensor: Tensor, name: str, order: tuple[int, ...]) -> None:
        """From here on `tensor` is the value `name`."""
        self._values[id(tensor.data)] = Value(name, tensor.shape, order)

    def value(self, x: Any, dtype: Any = None) -> Value:
        """A tensor as a value: an earlier result, a parameter, or else a constant; of `dtype` if it is a number."""
        if not isinstance(x, Tensor):
            return Value(self.constant(np.asarray(x, dtype)), (), ())
        found = self._values.get(id(x.data))
        if found is None and id(x.data) in self._state:
            name, tensor = self._state[id(x.data)]
            array = to_device(tensor.data, "cpu")
            is_conv = isinstance(tensor, Parameter) and tensor.layout == "HWIO"
            order = OIHW_FROM_HWIO if is_conv else plain(array.ndim)
            self.weights[name] = array.transpose(order)
            found = self._values[id(x.data)] = Value(name, array.shape, order)
        return found or Value(self.constant(to_device(x.data, "cpu")), x.shape, plain(x.ndim))

    def node(self, op: str, *inputs: str, **settings: Any) -> str:
        """Add a node, and return the name of its output. An input "" is left out."""
        from onnx import helper

        path = f"/{self.layer.replace('.', '/')}/{op}".replace("//", "/")
        count = self._names[path]
        self._names[path] += 1
        name = f"{path}_{count}" if count else path
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_output"], name, **settings))
        return f"{name}_output"

    def constant(self, array: Any) -> str:
        """Add a constant: settings that ONNX wants as inputs, and arrays that are no state of the model."""
        from onnx import numpy_helper

        contiguous = np.ascontiguousarray(array).reshape(np.shape(array))  # which alone would make a number a vector
        return self.node("Constant", value=numpy_helper.from_array(contiguous))

    def ints(self, *values: int) -> str:
        """A constant of shape (K,) of int64."""
        return self.constant(np.array(values, np.int64))

    def ordered(self, value: Value, order: tuple[int, ...]) -> str:
        """The value with its axes in another order."""
        if value.order == order:
            return value.name
        return self.node("Transpose", value.name, perm=[value.axis(axis) for axis in order])

    def plain(self, value: Value) -> str:
        """The value with its axes as in minires."""
        return self.ordered(value, plain(len(value.shape)))

    def images(self, x: Any) -> str:
        """Images (N, H, W, C) as (N, C, H, W)."""
        return self.ordered(self.value(x), IMAGES)

    def together(self, y: Tensor, *inputs: Any) -> tuple[list[str], tuple[int, ...]]:
        """What broadcasts to y, all in the order of the first that has one of its own, and that order."""
        values = [self.value(x, y.dtype) for x in inputs]
        moved = (v.order for v in values if len(v.order) == y.ndim and v.order != plain(y.ndim))
        order = next(moved, plain(y.ndim))
        return [self._aligned(v, order) for v in values], order

    def _aligned(self, value: Value, order: tuple[int, ...]) -> str:
        missing = len(order) - len(value.order)
        if not value.shape or order == plain(len(order)):  # then ONNX broadcasts as NumPy does
            return self.plain(value)
        if missing:
            name = self.node("Unsqueeze", self.plain(value), self.ints(*range(missing)))
            value = Value(name, (1,) * missing + value.shape, plain(len(order)))
        return self.ordered(value, order)

    def finish(self, name: str, y: Tensor, add: Any, relu: bool) -> Value:
        """A value with what a fused op does after it: + add, ReLU."""
        if add is not None:
            name = self.node("Add", name, self.ordered(self.value(add), IMAGES if y.ndim == 4 else plain(y.ndim)))
        if relu:
            name = self.node("Relu", name)
        return Value(name, y.shape, IMAGES if y.ndim == 4 else plain(y.ndim))


def refused(layer: str, what: str) -> ArgumentError:
    """The error for what cannot be exported."""
    return ArgumentError(f"onnx.export: {what}, in {f'layer {layer!r}' if layer else 'the model itself'}")
