"""onnxruntime as the oracle: importing this module skips the test module where it or onnx is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, nn, no_grad

onnx = pytest.importorskip("onnx", reason="pip install 'minires[onnx]'")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle of this test: pip install onnxruntime")
TOLERANCE = 5e-6  # of the largest entry


def nchw(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def run(path: Path, images: np.ndarray) -> np.ndarray:
    """What onnxruntime computes from images (N, H, W, C), its threads not left spinning beside ours."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return session.run(None, {given.name: nchw(images)})[0]


def here(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """What the model computes in evaluation, in the layout of the file."""
    with no_grad():
        return nchw(model.eval()(Tensor(images)).data)


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, beside the largest entry expected."""
    assert actual.shape == expected.shape
    return float(abs(actual - expected).max() / abs(expected).max())


def exported(model: nn.Module, images: np.ndarray, path: Path, exact: bool = True) -> Any:
    """The model exported, found equal to onnxruntime on these images and on the first alone; the file as onnx has it.

    Then read again, and found equal to what it was: to the bit where `exact`.
    """
    minires.onnx.export(model, path, images.shape[1:])
    for batch in (images, images[:1]):
        assert error(run(path, batch), here(model, batch)) <= TOLERANCE
    again = minires.onnx.load(path)
    assert not again.training
    recorded = [net(Tensor(images)).data for net in (again, model)]  # batch norm is not folded into the weights
    assert error(*recorded) <= (0 if exact else TOLERANCE)
    assert error(here(again, images), here(model, images)) <= TOLERANCE
    assert set(again.state_dict()) <= set(model.state_dict())
    return onnx.load(path)


def file(
    nodes: list[Any],
    weights: dict[str, np.ndarray] | None = None,
    shape: Any = ("N", 3, 8, 6),
    opset: int = 17,
    inferred: bool = True,
) -> Any:
    """An ONNX model of some nodes, from "x" to "y"."""
    value = onnx.helper.make_tensor_value_info
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = onnx.helper.make_graph(
        nodes, "test", [value("x", onnx.TensorProto.FLOAT, shape)], [value("y", onnx.TensorProto.FLOAT, None)], arrays
    )
    made = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.acme", 1)],
        ir_version=8,
    )
    if inferred:
        made = onnx.shape_inference.infer_shapes(made)
    made.graph.output[0].type.tensor_type.shape.SetInParent()  # onnx.checker wants one, also where none was inferred
    return made


def conv(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)
