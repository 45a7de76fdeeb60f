"""ONNX files that are damaged, or made to do harm: one error, no other file opened, and no memory beyond their size."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import nn
from minires.errors import CheckpointError
from tests.onnx.runtime import onnx

helper = onnx.helper


def refused(path: Path, message: str | None = None) -> None:
    """Loading raises CheckpointError, and takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message):
            minires.onnx.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23 + 20 * path.stat().st_size
    finally:
        tracemalloc.stop()


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A small model's file, as onnx has it."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, generator=rng), nn.BatchNorm2d(4), nn.Flatten())
    net.append(nn.Linear(4 * 3 * 3, 2, generator=rng))
    minires.onnx.export(net, tmp_path / "good.onnx", (5, 5, 3))
    return onnx.load(tmp_path / "good.onnx")


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no ONNX file at"):
        minires.onnx.load(tmp_path / "none.onnx")
    with pytest.raises(CheckpointError, match="no ONNX file at"):
        minires.onnx.load(tmp_path)
    for content in (b"", b"hello", b"\x80\x04N.", bytes(1000)):
        (tmp_path / "net.onnx").write_bytes(content)
        refused(tmp_path / "net.onnx", "no ONNX file")


def test_every_truncation(model: Any, tmp_path: Path) -> None:
    content, path = model.SerializeToString(), tmp_path / "net.onnx"
    words = sum(2 + entry.ByteSize() for entry in model.metadata_props)  # they stand last, and may be missed
    for length in (n for n in range(0, len(content), 7) if n != len(content) - words):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            minires.onnx.load(path)


def test_changed_bytes(model: Any, tmp_path: Path) -> None:
    """Any byte changed: an error of one kind, or a model. ONNX has no checksums: a weight may be another."""
    content, path = bytearray(model.SerializeToString()), tmp_path / "net.onnx"
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for place in rng.integers(0, len(content), 600):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            minires.onnx.load(path)
            outcomes["read"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    print(outcomes)
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_weights_in_another_file_are_never_read(where: str, model: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    tensors = [n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"]
    tensor = model.graph.initializer[0] if where == "initializer" else tensors[0]
    for location in ("secret", "../secret", "/etc/passwd"):
        del tensor.external_data[:]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        refused(tmp_path / "net.onnx", "lies in another file, and none but this is opened")


@pytest.mark.parametrize(
    "dims", [[2**40], [2**31, 2**31], [-1], [4, 3, 3, -1], [0, 2**40, 3, 3], [2**62, 2**62, 4], []]
)
def test_sizes_that_are_not_the_datas(dims: list[int], model: Any, tmp_path: Path) -> None:
    weight = next(t for t in model.graph.initializer if t.name == "0.weight")
    del weight.dims[:]
    weight.dims.extend(dims)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kernel_shape", [2, 2], r"kernel_shape \[2, 2\], but weights of \[3, 3\]"),
        ("strides", [0, 1], "stride must be"),
        ("group", 3, "Conv"),
        ("group", 0, "Conv.*for 0 groups"),
        ("group", -1, "Conv.*for -1 groups"),
        ("group", -(2**40), "Conv"),
        ("pads", [-1, 0, 0, 0], "padding must be"),
        ("dilations", "what", "dilations"),
    ],
)
def test_settings_that_do_not_fit(name: str, value: Any, message: str, model: Any, tmp_path: Path) -> None:
    (node,) = (n for n in model.graph.node if n.op_type == "Conv")
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "net.onnx", message)


def test_one_weight_a_thousand_times(tmp_path: Path) -> None:
    """Each name would be a copy of its own."""
    value, count = helper.make_tensor_value_info, 1000
    nodes = [helper.make_node("Identity", ["w"], [f"w{i}"]) for i in range(count)]
    names = ["x", *(f"c{i}" for i in range(count - 1)), "y"]
    nodes += [helper.make_node("Conv", [names[i], f"w{i}"], [names[i + 1]]) for i in range(count)]
    weight = onnx.numpy_helper.from_array(np.zeros((64, 64, 5, 5), np.float32), "w")
    images = value("x", onnx.TensorProto.FLOAT, ["N", 64, 1, 1])
    graph = helper.make_graph(nodes, "bomb", [images], [value("y", onnx.TensorProto.FLOAT, ["N", 64, 1, 1])], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    refused(tmp_path / "net.onnx", "many times the weights that the file has")


def test_a_list_of_sizes_that_doubles(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Constant", [], ["s0"], value=onnx.numpy_helper.from_array(np.ones(8, np.int64)))]
    nodes += [helper.make_node("Concat", [f"s{i}", f"s{i}"], [f"s{i + 1}"], axis=0) for i in range(60)]
    nodes += [helper.make_node("Reshape", ["x", "s60"], ["y"])]
    given, made = (value(name, onnx.TensorProto.FLOAT, ["N"]) for name in "xy")
    graph = helper.make_graph(nodes, "bomb", [given], [made])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    refused(tmp_path / "net.onnx", "many times the weights that the file has")


def test_names_that_are_no_names(model: Any, tmp_path: Path) -> None:
    """They would be attributes of the model's own, or paths without end: the layers get others."""
    for name in (
        "forward.weight",
        "_nodes.weight",
        "_new.weight",
        "__class__.weight",
        ".weight",
        "a." * 5000 + "weight",
        "é.weight",
    ):
        text = model.SerializeToString()
        other = onnx.ModelProto.FromString(text)
        for tensor in other.graph.initializer:
            tensor.name = name if tensor.name == "0.weight" else tensor.name
        for node in other.graph.node:
            node.input[:] = [name if given == "0.weight" else given for given in node.input]
        (tmp_path / "net.onnx").write_bytes(other.SerializeToString())
        loaded = minires.onnx.load(tmp_path / "net.onnx")
        assert len(list(loaded.parameters())) == 6
        assert not any(parameter.startswith("_") for parameter, _ in loaded.named_parameters())
        assert loaded(np.zeros((1, 5, 5, 3), np.float32)).shape == (1, 2)
