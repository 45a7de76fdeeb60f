"""ONNX files as models that run and train here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, CheckpointError, DTypeError, MiniresError, ShapeError
from ..nn import BatchNorm2d, Dropout, Module, Parameter
from ..ops.checks import as_tensor
from ..tensor import Tensor
from .export import import_onnx
from .graph import plain
from .layers import LAYERS, ROLES, path_of, place
from .layers import run as run_layer
from .operators import OPERATORS, STORED, Operator, Value, of_plain

OPSETS = range(13, 27)
MOST_NODES = 100_000
MOST_NAMED = 20  # problems in one message
ADMITTED = {
    "auto_pad": ("NOTSET", "SAME_UPPER", "VALID"), "storage_order": (0,), "mode": ("constant", "edge", "reflect"),
    "transA": (0,), "noop_with_empty_axes": (0,), "approximate": ("none", "tanh"),
}  # fmt: skip
FOLDED = ("Concat", "Reshape", "Squeeze", "Unsqueeze")  # of constants they are made at once: sizes and places
LENGTHS = {"kernel_shape": 2, "strides": 2, "dilations": 2, "pads": 4}


@dataclass
class Node:
    """One step: an operator with its settings or a layer, what it reads and makes, and what is not needed after it."""

    name: str
    op: str
    inputs: list[str]
    output: str
    settings: dict[str, Any]
    layer: Module | None = None
    last: list[str] = field(default_factory=list)

    def run(self, values: dict[str, Value]) -> Value:
        given = [values[name] for name in self.inputs]
        try:
            return run_layer(self.layer, *given) if self.layer else OPERATORS[self.op].run(*given, **self.settings)
        except MiniresError as error:
            error.add_note(f"in node {self.name!r} ({self.op}) of the ONNX file")
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:  # settings without sense
            raise ArgumentError(f"node {self.name!r} ({self.op}) of the ONNX file: {error}") from error


class OnnxModel(Module):
    """A model read from an ONNX file. It takes images (N, H, W, C), as all here do, and trains like any other.

    Convolutions, batch norms and Gemm are layers under the names that their weights have in the file, with PyTorch's
    state-dict keys where PyTorch wrote it. Other weights are parameters; a constant is not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._nodes: list[Node] = []
        self._constants: dict[str, np.ndarray] = {}
        self._weights: dict[str, Parameter] = {}  # those of no layer, by their names in the file
        self._input = self._output = ""
        self._sizes: tuple[int | None, ...] = ()  # of the input, as it is here; None is any
        self.metadata: dict[str, str] = {}

    def forward(self, x: Any) -> Tensor:
        """(N, H, W, C), or (N, features) for a file that takes no images, to the file's output.

        Raises ShapeError for sizes that the file does not take, DTypeError for what is not floating.
        """
        x = as_tensor(x)
        if x.dtype.kind != "f":
            raise DTypeError(f"the ONNX file's input is floating, not {x.dtype}: pass x.to('float32')")
        if len(self._sizes) != x.ndim or any(n not in (None, m) for n, m in zip(self._sizes, x.shape, strict=True)):
            axes = "images (N, H, W, C) =" if len(self._sizes) == 4 else "an input of"
            sizes = ", ".join("any" if n is None else str(n) for n in self._sizes)
            raise ShapeError(
                f"the ONNX file takes {axes} ({sizes}), not {x.shape}; "
                "it fixes these sizes: PyTorch's exporter leaves open those in dynamic_axes"
            )
        values = {name: of_plain(weight) for name, weight in self._weights.items()}
        for name, array in self._constants.items():
            typed = array.astype(x.dtype, copy=False) if array.dtype.kind == "f" else array
            values[name] = of_plain(Tensor(typed, device=x.device))
        values[self._input] = Value(x, STORED if x.ndim == 4 else plain(x.ndim))
        for node in self._nodes:
            values[node.output] = node.run(values)
            for name in node.last:  # so that in evaluation its memory is free for the next layers
                values.pop(name, None)
        result = values[self._output]
        return result.images if len(result.order) == 4 else result.plain


def load(path: str | Path) -> OnnxModel:
    """The model of an ONNX file, in evaluation, or in training if the file is in training form.

    Raises CheckpointError for a file that is missing, damaged or asks for what is not here; for operators, it names
    all of them. Only the file itself is read, and what it holds bounds the memory.
    """
    onnx, path = import_onnx(), Path(path)
    if not path.is_file():
        raise CheckpointError(f"no ONNX file at {path}")
    content = path.read_bytes()
    try:
        proto = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own, of which there are several
        raise CheckpointError(f"{path} is damaged or no ONNX file: {error}") from error
    try:
        _check(onnx, proto)
        return _Reader(onnx, proto, 4 * len(content) + 2**20).model
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error.__cause__
    except (MiniresError, ValueError, TypeError, KeyError, IndexError, OverflowError, ArithmeticError) as error:
        raise CheckpointError(f"{path} is damaged, or asks for what minires has not: {error}") from error


def _check(onnx: Any, proto: Any) -> None:
    """That the file is self-contained, of a known opset, and made of known operators. Raises CheckpointError."""
    if not proto.HasField("graph") or not proto.graph.node:
        raise CheckpointError("it is no ONNX file, or one without a graph")
    graph = proto.graph
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        raise CheckpointError(
            f"it is of opset {opset}; {OPSETS[0]} to {OPSETS[-1]} are read (onnx.version_converter converts)"
        )
    if len(graph.node) > MOST_NODES:
        raise CheckpointError(f"it has {len(graph.node)} nodes; {MOST_NODES} are read")
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute)]
    tensors += [t for node in graph.node for a in node.attribute for t in a.tensors]
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            raise CheckpointError(
                f"{tensor.name!r} lies in another file, and none but this is opened; "
                "write it as one: onnx.save(onnx.load(path), path)"
            )
    problems: dict[str, list[str]] = {}
    for node in graph.node:
        for problem in _problems(onnx, node):
            problems.setdefault(problem, []).append(repr(node.name) if node.name else f"of {node.output[:2]}")
    if problems:
        what = "; ".join(
            f"{problem[:200]} ({f'{len(nodes)} nodes, the first' if len(nodes) > 1 else 'node'} {nodes[0][:200]})"
            for problem, nodes in list(problems.items())[:MOST_NAMED]
        )
        more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        raise CheckpointError(
            f"not supported: {what}{more}. Supported operators: {', '.join(sorted([*OPERATORS, *LAYERS]))}"
        )
    if proto.functions or graph.sparse_initializer:
        raise CheckpointError("functions and sparse weights are not supported")
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise CheckpointError(f"it is damaged, onnx.checker says: {error}") from error


def _problems(onnx: Any, node: Any) -> list[str]:
    """What of a node has no counterpart here."""
    if node.op_type == "Constant" and not node.domain:
        return [] if [a.name for a in node.attribute] == ["value"] else ["Constant other than of a tensor"]
    if node.domain not in ("", "ai.onnx") or node.op_type not in {**OPERATORS, **LAYERS}:
        return [f"operator {f'{node.domain}.' if node.domain else ''}{node.op_type}"]
    known = _settings_of(node.op_type)
    problems = []
    for attribute in node.attribute:
        if attribute.name not in known:
            problems.append(f"{node.op_type} with {attribute.name}")
            continue
        value = _attribute(onnx, attribute)
        admitted = ADMITTED.get(attribute.name)
        if (admitted and value not in admitted) or (
            attribute.name in LENGTHS and (not isinstance(value, list) or len(value) != LENGTHS[attribute.name])
        ):
            problems.append(f"{node.op_type} with {attribute.name}={value!r}")
    return problems


def _settings_of(op: str) -> dict[str, Any]:
    """The names that an operator takes as attributes."""
    if op in OPERATORS:
        return OPERATORS[op].settings
    return LAYERS[op].__kwdefaults__ or {}


def _attribute(onnx: Any, attribute: Any) -> Any:
    """An attribute's value. Of a float, which ONNX keeps in 32 bits, the decimal number that was meant."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return float(str(np.float32(value))) if isinstance(value, float) else value


class _Reader:
    """Makes the model, node by node. `self.model` is the result."""

    def __init__(self, onnx: Any, proto: Any, most: int) -> None:
        self.onnx, self.left = onnx, most
        graph = proto.graph
        self.model = OnnxModel()
        self.model.metadata = {entry.key: entry.value for entry in proto.metadata_props}
        self.arrays = {t.name: self._array(t) for t in graph.initializer}  # weights and constants, by name
        self.constants: set[str] = set()  # those that a Constant made: they are no weights
        self.layers: dict[str, Module] = {}
        self.shared: dict[Any, Any] = {}  # parameters that several layers have in common
        inputs = [value.name for value in graph.input if value.name not in self.arrays]
        outputs = [value.name for value in graph.output]
        if len(inputs) != 1 or len(outputs) != 1:
            raise CheckpointError(f"it has the inputs {inputs} and the outputs {outputs}; one of each is supported")
        self.model._input, self.model._output = inputs[0], outputs[0]
        kind = next(value.type.tensor_type for value in graph.input if value.name == inputs[0])
        sizes = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
        self.model._sizes = tuple(sizes[axis] for axis in STORED) if len(sizes) == 4 else sizes
        self.uses = Counter([name for node in graph.node for name in node.input if name] + outputs)
        for node in graph.node:
            self._read(node)
        self._finish()

    def _array(self, tensor: Any) -> np.ndarray:
        kinds = self.onnx.TensorProto
        floats, others = (kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16), (kinds.INT64, kinds.INT32, kinds.BOOL)
        if tensor.data_type not in floats + others:
            kind = self.onnx.helper.tensor_dtype_to_string(tensor.data_type) if tensor.data_type else "no type"
            raise CheckpointError(f"{tensor.name!r} is {kind} of shape {list(tensor.dims)}: not supported")
        try:
            array: np.ndarray = self.onnx.numpy_helper.to_array(tensor)
        except Exception as error:
            raise CheckpointError(f"{tensor.name!r} is damaged: {error}") from error
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def _read(self, node: Any) -> None:
        attributes = {a.name: _attribute(self.onnx, a) for a in node.attribute}
        if node.op_type == "Constant":
            self.arrays[node.output[0]] = self._array(attributes["value"])
            self.constants.add(node.output[0])
        elif node.op_type == "Identity" and node.input[0] in self.arrays:  # PyTorch writes equal weights only once
            self.arrays[node.output[0]] = self.arrays[node.input[0]]
            if node.input[0] in self.constants:
                self.constants.add(node.output[0])
        else:
            name = node.name or node.output[0]
            try:
                if any(self.uses[extra] for extra in node.output[1:]):
                    raise CheckpointError("only the first output is supported")
                if node.op_type in FOLDED and self._is_constant(node.input):
                    for of in node.input:  # before: a file of a few lines may double a list of sizes forty times
                        self._count(self.arrays[of])
                    made = self._operator(node, name, attributes)
                    given = {of: of_plain(Tensor(self.arrays[of])) for of in made.inputs}
                    self.arrays[made.output] = made.run(given).plain.data
                    self.constants.add(made.output)
                    return
                make = self._layer if node.op_type in LAYERS else self._operator
                self.model._nodes.append(make(node, name, attributes))
            except (MiniresError, ValueError, TypeError, KeyError, IndexError, ArithmeticError) as error:
                raise CheckpointError(f"node {name!r} ({node.op_type}): {error}") from error

    def _is_constant(self, names: Any) -> bool:
        return all(name in self.constants and self.arrays[name].dtype.kind == "i" for name in names)

    def _constant(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise CheckpointError(f"{name!r} must be constant, and not be computed")
        return self.arrays[name]

    def _operator(self, node: Any, name: str, settings: dict[str, Any]) -> Node:
        known: Operator = OPERATORS[node.op_type]
        inputs = list(node.input)
        for place_, constant in known.constants.items():
            if place_ < len(inputs) and inputs[place_]:
                settings[constant] = self._constant(inputs[place_])
                if constant not in ("min", "max", "value") and settings[constant].dtype.kind != "i":
                    raise CheckpointError(f"{constant} {inputs[place_]!r} must be integers")
        inputs = [given for i, given in enumerate(inputs) if i not in known.constants]
        return Node(name, node.op_type, inputs, node.output[0], settings)

    def _layer(self, node: Any, name: str, settings: dict[str, Any]) -> Node:
        x, *names = node.input
        node_ = Node(name, node.op_type, [x], node.output[0], {})
        key = node.op_type, tuple(names), repr(sorted(settings.items())), len(node.output)
        if key in self.shared:
            node_.layer = self.shared[key]
            return node_
        arrays = [self._constant(given) if given else None for given in names]
        if node.op_type == "Dropout":
            settings |= dict(zip(("ratio", "training_mode"), arrays, strict=False))
            arrays = []
        for array in arrays:
            self._count(array)
        layer = LAYERS[node.op_type](*arrays, **settings)
        for role, given in zip(ROLES[node.op_type], names, strict=False):
            tied = node.op_type, role, given, settings.get("transB"), settings.get("alpha"), settings.get("beta")
            if given:
                setattr(layer, role, self.shared.setdefault(tied, getattr(layer, role)))
        with_statistics = isinstance(layer, BatchNorm2d) and len(node.output) > 1  # how opset 13 says training
        layer.training = bool(settings.get("training_mode")) or with_statistics
        node_.layer = self.shared[key] = layer
        place(self.model, path_of(node, names[0] if names and not isinstance(layer, Dropout) else ""), layer,
              node.op_type.lower())  # fmt: skip
        return node_

    def _count(self, array: np.ndarray | None) -> None:
        self.left -= 0 if array is None else array.nbytes
        if self.left < 0:
            raise CheckpointError("its layers have many times the weights that the file has")

    def _finish(self) -> None:
        """Weights of no layer become parameters; what a value is not needed after; the mode of what has none yet."""
        model = self.model
        read = [name for node in model._nodes for name in node.inputs]
        for name in dict.fromkeys([*read, model._output]):
            array = self.arrays.get(name)
            if array is not None and (name in self.constants or array.dtype.kind != "f"):
                model._constants[name] = array
            elif array is not None:
                self._count(array)
                model._weights[name] = Parameter(array.copy())
                place(model, name, model._weights[name], "weight")
        seen = {model._output}
        for node in reversed(model._nodes):
            node.last = [name for name in {*node.inputs, node.output} if name not in seen]
            seen.update(node.inputs)
        with_modes = BatchNorm2d, Dropout  # each has its own: a frozen batch norm stays one
        training = any(m.training for m in model.modules() if isinstance(m, with_modes))
        for module in model.modules():
            if not isinstance(module, with_modes):
                module.training = training
