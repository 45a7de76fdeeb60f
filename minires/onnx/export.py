"""Models as ONNX files, which other programs run: onnxruntime, TensorRT, OpenVINO, a browser."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..autograd import Function
from ..errors import ArgumentError
from ..files import write_whole
from ..nn import Module
from ..ops.checks import integers
from ..tensor import Tensor
from .converters import CONVERTERS
from .graph import IMAGES, Graph, plain, refused
from .trace import trace

OPSET, IR_VERSION = 20, 9  # of December 2023: onnxruntime 1.17 and later read them
LARGEST = 2**31 - 2**20  # bytes of weights: protobuf holds 2 GiB in all
BATCHES = 2, 3  # the sizes that a model is traced with; the file takes any


def export(
    model: Module, path: str | Path, image_shape: Sequence[int], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write what `model` computes in evaluation from images of `image_shape` = (H, W, C), for any number of them.

    The file's input is "images" (N, C, H, W), its output "logits", as other programs expect; weights keep their names.
    `metadata` are words to go along, such as how the images are normalised. The model must compute one tensor from the
    images, in float32 or float64, by ops that the converters know; else ArgumentError names the op and its layer. The
    model stays as it is. The file appears whole, once onnx.checker has passed it.
    """
    onnx = import_onnx()
    if not isinstance(model, Module):
        raise ArgumentError(f"onnx.export: takes a model, then a path, not a {type(model).__name__}")
    shape = integers("onnx.export", (image_shape,))
    if len(shape) != 3 or min(shape) < 1:
        raise ArgumentError(f"onnx.export: image_shape must be (H, W, C), not {image_shape!r}")
    words = {} if metadata is None else metadata
    if not isinstance(words, Mapping) or not all(isinstance(word, str) for pair in words.items() for word in pair):
        raise ArgumentError(f"onnx.export: metadata must map words to words, not {metadata!r}")
    try:
        inspect.signature(model.forward).bind(None)
    except TypeError as error:
        raise ArgumentError(
            f"onnx.export: {type(model).__name__}.forward must take the images alone: {error}"
        ) from None
    content = _to_model(onnx, model, shape, dict(words)).SerializeToString()
    write_whole(Path(path), content)


def import_onnx() -> Any:
    """The onnx package. Raises ArgumentError where it is not installed."""
    try:
        import onnx
        import onnx.checker  # not imported with it in every version
    except ImportError as error:
        raise ArgumentError("minires.onnx needs the onnx package: pip install 'minires[onnx]'") from error
    return onnx


def _to_model(onnx: Any, model: Module, shape: tuple[int, ...], metadata: dict[str, str]) -> Any:
    state = dict([*model.named_parameters(), *model.named_buffers()])
    if taken := sorted(state.keys() & {"images", "logits"}):
        raise ArgumentError(f"onnx.export: {taken[0]!r} is the file's input or output: give the parameter another name")
    total = sum(t.numel() * t.dtype.itemsize for t in state.values())
    if total > LARGEST:
        raise ArgumentError(
            f"onnx.export: {total / 2**30:.1f} GiB of weights, but an ONNX file holds 2 GiB; see checkpoint.save"
        )
    floats = [p for p in state.values() if p.dtype.kind == "f"]
    dtypes = {p.dtype for p in floats} or {np.dtype(np.float32)}
    if len(dtypes) > 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        given = ", ".join(sorted(map(str, dtypes)))
        raise ArgumentError(f"onnx.export: the model is {given}; convert it with model.to('float32')")
    (dtype,), device = dtypes, floats[0].device if floats else "cpu"
    rng = np.random.default_rng(0)
    batches = [Tensor(rng.standard_normal((n, *shape)).astype(dtype), device=device) for n in BATCHES]
    graph, *others = (_to_graph(model, images, state) for images in batches)
    for other in others:
        _check_alike(graph, other)
    helper, (height, width, channels) = onnx.helper, shape
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    inputs = helper.make_tensor_value_info("images", kind, ["N", channels, height, width])
    output = helper.make_tensor_value_info("logits", kind, graph.output_shape)
    weights = [onnx.numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in graph.weights.items()]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, type(model).__name__, [inputs], [output], weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="minires",
        producer_version=_version(),
    )
    helper.set_model_props(proto, {"layout": "images NCHW, convolution weights OIHW", **metadata})
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ArgumentError(f"onnx.export: onnx.checker refuses {type(model).__name__}: {error}") from error
    return proto


def _to_graph(model: Module, images: Tensor, state: Mapping[str, Tensor]) -> Graph:
    """The graph of one run. The output's last node is made to write "logits"."""
    calls, output = trace(model, images, _check_known)
    graph = Graph(state)
    graph.define(images, "images", IMAGES)
    for call in calls:
        graph.layer = call.layer
        y = call.outputs[0]
        value = CONVERTERS[type(call.function)](graph, call.function, y, *call.inputs)
        graph.define(y, value.name, value.order)
    graph.layer = ""
    if not isinstance(output, Tensor):
        raise ArgumentError(f"onnx.export: the model must return one tensor, not a {type(output).__name__}")
    value = graph.value(output)
    order = IMAGES if output.ndim == 4 else plain(output.ndim)
    name = graph.ordered(value, order)
    sizes: list[Any] = [output.shape[axis] for axis in order]
    graph.output_shape = ["N" if axis == 0 and n == len(images) else n for axis, n in zip(order, sizes, strict=True)]
    for node in graph.nodes:
        for names in (node.input, node.output):
            names[:] = ["logits" if n == name else n for n in names]
    if not any("logits" in node.output for node in graph.nodes):  # the images themselves, or a parameter
        graph.nodes.append(_identity(name))
    return graph


def _identity(name: str) -> Any:
    from onnx import helper

    return helper.make_node("Identity", [name], ["logits"], "/Identity")


def _check_known(function: Function, layer: str) -> None:
    if type(function) not in CONVERTERS:
        known = ", ".join(sorted(f.__name__ for f in CONVERTERS))
        raise refused(layer, f"{function!r} cannot be exported; ops that can: {known}")


def _check_alike(graph: Graph, other: Graph) -> None:
    """Two runs on different batches made the same graph: nothing in it is this batch's size, or made of its pixels."""
    for a, b in zip(graph.nodes, other.nodes, strict=False):
        if a != b:
            break
    else:
        if len(graph.nodes) == len(other.nodes) and graph.output_shape == other.output_shape:
            return
        a = graph.nodes[-1]
    raise ArgumentError(
        f"onnx.export: {a.name} differs for batches of {BATCHES[0]} and {BATCHES[1]}: the model uses the batch's size, "
        "or values that no op made (of .data, of a comparison, of a layer under no_grad); "
        "use -1 for the batch in reshape, ops of minires, and no no_grad in forward"
    )


def _version() -> str:
    from .. import __version__

    return __version__
