"""Models read from hand-made ONNX graphs: what neither exporter writes, what makes no sense, what is not supported."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, nn, no_grad
from minires.errors import CheckpointError, DTypeError, MiniresError, ShapeError
from tests.onnx.runtime import TOLERANCE, conv, error, file, here, onnx, run

helper = onnx.helper


@pytest.mark.parametrize(
    ("op", "settings", "shape"),
    [
        ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, None),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 0, 0, 1]}, None),
        ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER", "strides": [1, 2]}, None),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "count_include_pad": 1}, None),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1]}, None),
        ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "VALID", "strides": [2, 2]}, None),
        ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, (4, 3, 3, 2)),
        ("Conv", {"pads": [0, 1, 2, 0], "dilations": [2, 1], "kernel_shape": [3, 2]}, (4, 3, 3, 2)),
        ("GlobalMaxPool", {}, None),
        ("Flatten", {"axis": 2}, None),
        ("Flatten", {"axis": -1}, None),
        ("Flatten", {"axis": 0}, None),
        ("Transpose", {}, None),
        ("Softmax", {"axis": 1}, None),
        ("ReduceMean", {"axes": [1, -1], "keepdims": 0}, None),
        ("ReduceMean", {"axes": [1]}, None),
        ("ReduceMax", {}, None),
        ("Squeeze", {}, None),
    ],
)
def test_operator(op: str, settings: Any, shape: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    """Settings that neither exporter writes."""
    weights = {"w.weight": conv(rng, *shape)} if shape else {}
    onnx.save(file([helper.make_node(op, ["x", *weights], ["y"], **settings)], weights), tmp_path / "net.onnx")
    images = conv(rng, 2, 8, 6, 3)
    y = minires.onnx.load(tmp_path / "net.onnx")(images).data
    assert error(y.transpose(0, 3, 1, 2) if y.ndim == 4 else y, run(tmp_path / "net.onnx", images)) <= TOLERANCE


@pytest.mark.parametrize(
    ("op", "inputs", "settings"),
    [
        ("Pad", [np.array([0, 0, 1, 2, 0, 0, 2, 1])], {"mode": "reflect"}),
        ("Pad", [np.array([0, 0, 1, 2, 0, 0, 2, 1])], {"mode": "edge"}),
        ("Pad", [np.array([1, 2]), np.float32(3), np.array([-1])], {}),
        ("Max", [np.float32(0.5), np.ones((1, 3, 1, 1), np.float32)], {}),
        ("Min", [], {}),
        ("Reshape", [np.array([0, 0, -1])], {}),
        ("ReduceSum", [np.array([], np.int64)], {}),
        ("ConvTranspose", [np.ones((3, 2, 3, 3), np.float32)], {"auto_pad": "VALID", "strides": [2, 2]}),
        ("AveragePool", [], {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "count_include_pad": 1}),
    ],
)
def test_operator_of_several(op: str, inputs: Any, settings: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    """Inputs and settings that neither exporter writes."""
    weights = {f"w{i}": np.asarray(array) for i, array in enumerate(inputs)}
    nodes = [helper.make_node(op, ["x", *weights], ["y"], **settings)]
    onnx.save(file(nodes, weights, opset=18), tmp_path / "net.onnx")
    images = conv(rng, 2, 8, 6, 3)
    y = minires.onnx.load(tmp_path / "net.onnx")(images).data
    assert error(y.transpose(0, 3, 1, 2) if y.ndim == 4 else y, run(tmp_path / "net.onnx", images)) <= TOLERANCE


def test_one_weight_in_several_ways(rng: np.random.Generator, tmp_path: Path) -> None:
    """A matrix that is read as it is, transposed and scaled is a weight of its own for each."""
    weights, ways = {"w": conv(rng, 4, 4), "b": conv(rng, 4)}, [{}, {"transB": 1}, {"alpha": 0.5}, {"beta": 2.0}]
    names = ["x", "1", "2", "3", "y"]
    nodes = [helper.make_node("Gemm", [names[i], "w", "b"], [names[i + 1]], **way) for i, way in enumerate(ways)]
    onnx.save(file(nodes, weights, ("N", 4)), tmp_path / "net.onnx")
    rows = conv(rng, 5, 4)
    assert error(minires.onnx.load(tmp_path / "net.onnx")(rows).data, run(tmp_path / "net.onnx", rows)) <= TOLERANCE


def test_float16_weights_and_float64_constants(rng: np.random.Generator, tmp_path: Path) -> None:
    """Both are computed with in float32."""
    weights = {"c.weight": conv(rng, 4, 3, 1, 1).astype(np.float16)}
    value = onnx.numpy_helper.from_array(np.array([0.1]), "value")
    nodes = [helper.make_node("Conv", ["x", "c.weight"], ["1"]), helper.make_node("Constant", [], ["c"], value=value)]
    nodes.append(helper.make_node("Mul", ["1", "c"], ["y"]))
    onnx.save(file(nodes, weights, inferred=False), tmp_path / "net.onnx")
    model = minires.onnx.load(tmp_path / "net.onnx")
    assert [p.dtype for p in model.parameters()] == [np.float32]
    assert model(conv(rng, 2, 8, 6, 3)).dtype == np.float32


def test_each_layers_own_mode(tmp_path: Path) -> None:
    """A frozen batch norm beside one that trains; opset 13 says so by its outputs."""
    weights = {"w": np.ones(3, np.float32)}
    frozen = helper.make_node("BatchNormalization", ["x", "w", "w", "w", "w"], ["1"])
    for opset, outputs, settings in ((17, ["y", "m", "v"], {"training_mode": 1}), (13, ["y", "m", "v", "s", "t"], {})):
        trained = helper.make_node("BatchNormalization", ["1", "w", "w", "w", "w"], outputs, **settings)
        onnx.save(file([frozen, trained], weights, opset=opset), tmp_path / "net.onnx")
        model = minires.onnx.load(tmp_path / "net.onnx")
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert ([m.training for m in norms], model.training) == ([False, True], True)


def test_no_weights_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a file of 500 MB would be thrown away: they took longer than all else."""
    drawn: list[int] = []
    weights = {"a.weight": np.ones((8, 3, 3, 3), np.float32), "b.weight": np.ones((5, 8 * 6 * 4), np.float32)}
    weights["b.bias"] = np.ones(5, np.float32)
    real = nn.init.uniform_
    monkeypatch.setattr(nn.init, "uniform_", lambda t, *rest: (drawn.append(t.numel()), real(t, *rest))[1])
    nodes = [helper.make_node("Conv", ["x", "a.weight"], ["1"]), helper.make_node("Flatten", ["1"], ["2"])]
    nodes.append(helper.make_node("Gemm", ["2", "b.weight", "b.bias"], ["y"], transB=1))
    onnx.save(file(nodes, weights), tmp_path / "net.onnx")
    model = minires.onnx.load(tmp_path / "net.onnx")
    assert sum(drawn) <= 4
    assert "8, kernel_size=(3, 3)" in repr(model)
    assert repr(nn.Linear(192, 5)) in repr(model)


@pytest.mark.parametrize(
    ("settings", "weight", "bias"),
    [({}, (4, 3), (3,)), ({"transB": 1, "alpha": 0.5, "beta": 2.0}, (3, 4), (1, 3)), ({"transB": 1}, (3, 4), (1,))],
)
def test_gemm(settings: Any, weight: Any, bias: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    weights = {"fc.weight": conv(rng, *weight), "fc.bias": conv(rng, *bias)}
    nodes = [helper.make_node("Gemm", ["x", *weights], ["y"], **settings)]
    onnx.save(file(nodes, weights, ("N", 4)), tmp_path / "net.onnx")
    rows = conv(rng, 5, 4)
    model = minires.onnx.load(tmp_path / "net.onnx")
    assert error(model(rows).data, run(tmp_path / "net.onnx", rows)) <= TOLERANCE
    assert {name: p.shape for name, p in model.named_parameters()} == {"fc.weight": (3, 4), "fc.bias": (3,)}


def shared(rng: np.random.Generator, path: Path) -> Any:
    """Two convolutions with one weight, a layer without name, and a weight of no layer."""
    weights = {"a.weight": conv(rng, 3, 3, 3, 3), "own": conv(rng, 3, 3, 1, 1), "train": conv(rng, 1, 3, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["1"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["1", "a.weight"], ["2"], pads=[2, 2, 2, 2], dilations=[2, 2]),
        helper.make_node("Conv", ["2", "own"], ["3"]),
        helper.make_node("Mul", ["3", "train"], ["y"]),
    ]
    onnx.save(file(nodes, weights), path)
    return minires.onnx.load(path)


def test_shared_weights_and_odd_names(rng: np.random.Generator, tmp_path: Path) -> None:
    """One weight is one parameter; a name that a module cannot have gets another."""
    model, images = shared(rng, tmp_path / "net.onnx"), conv(rng, 2, 8, 6, 3)
    assert error(here(model, images), run(tmp_path / "net.onnx", images)) <= TOLERANCE
    assert sorted(len(p.shape) for p in model.parameters()) == [4, 4, 4]
    assert {"a.weight", "conv.weight"} <= {name for name, _ in model.named_parameters()}
    assert callable(model.train)


def test_a_copy_is_of_its_own(rng: np.random.Generator, tmp_path: Path) -> None:
    model, images = shared(rng, tmp_path / "net.onnx"), Tensor(conv(rng, 2, 8, 6, 3))
    twin, before = copy.deepcopy(model), model(images).data
    with no_grad():
        for p in twin.parameters():
            p[...] = 0
    np.testing.assert_array_equal(model(images).data, before)
    assert not twin(images).data.any()
    assert model.to("float64")(images.to("float64")).dtype == np.float64


def test_an_error_in_a_node_names_it(rng: np.random.Generator, tmp_path: Path) -> None:
    model = shared(rng, tmp_path / "net.onnx")
    model._sizes = (None,) * 4
    with pytest.raises(ShapeError) as raised:
        model(conv(rng, 2, 8, 6, 4))
    assert raised.value.__notes__ == ["in node '1' (Conv) of the ONNX file"]


@pytest.mark.parametrize(
    ("op", "inputs", "settings"),
    [
        ("Clip", [np.ones(3, np.float32)], {}),
        ("Transpose", [], {"perm": [0, 1, 1, 2]}),
        ("Transpose", [], {"perm": [0, 1, 2, 3, 3]}),
        ("Cast", [], {"to": 99}),
        ("Unsqueeze", [np.array([0, 0])], {}),
        ("Unsqueeze", [np.array([9])], {}),
        ("Expand", [np.array([7, 7])], {}),
        ("Pad", [np.array([1, 1, 1])], {}),
        ("Pad", [np.array([1, 1]), np.float32(0), np.array([4])], {}),
        ("Slice", [np.array([0]), np.array([1, 2])], {}),
        ("Flatten", [], {"axis": 9}),
    ],
)
def test_settings_without_sense(op: str, inputs: Any, settings: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    """One error that names the node."""
    weights = {f"w{i}": np.asarray(array) for i, array in enumerate(inputs)}
    nodes = [helper.make_node(op, ["x", *weights], ["y"], "/head/0", **settings)]
    onnx.save(file(nodes, weights, opset=18, inferred=False), tmp_path / "net.onnx")
    with pytest.raises(MiniresError) as raised:
        minires.onnx.load(tmp_path / "net.onnx")(conv(rng, 2, 8, 6, 3))
    assert f"node '/head/0' ({op})" in "".join([str(raised.value), *getattr(raised.value, "__notes__", [])])


@pytest.mark.parametrize(
    ("op", "inputs"), [("Reshape", [np.float32([2.5, -1])]), ("ReduceMean", [np.float32([1])])]
)  # fmt: skip
def test_sizes_that_are_no_integers(op: str, inputs: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node(op, ["x", "w"], ["y"])]
    onnx.save(file(nodes, {"w": inputs[0]}, opset=18, inferred=False), tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match="'w' must be integers"):
        minires.onnx.load(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        (
            (2, 3, 8, 6),
            (4, 8, 6, 3),
            r"takes images \(N, H, W, C\) = \(2, 8, 6, 3\), not \(4, 8, 6, 3\); .*dynamic_axes",
        ),
        (("N", 3, 8, "W"), (4, 9, 6, 3), r"\(any, 8, any, 3\), not \(4, 9, 6, 3\)"),
        (("N", 3, 8, 6), (8, 8, 6), r"\(any, 8, 6, 3\), not \(8, 8, 6\)"),
        (("N", 5), (4, 6), r"takes an input of \(any, 5\), not \(4, 6\)"),
    ],
)
def test_sizes_that_the_file_fixes(shape: Any, given: Any, message: str, tmp_path: Path) -> None:
    onnx.save(file([helper.make_node("Relu", ["x"], ["y"])], shape=shape), tmp_path / "net.onnx")
    model = minires.onnx.load(tmp_path / "net.onnx")
    with pytest.raises(ShapeError, match=message):
        model(np.zeros(given, np.float32))


def test_an_op_of_images_on_rows(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["1"]), helper.make_node("GlobalMaxPool", ["1"], ["y"])]
    onnx.save(file(nodes, inferred=False), tmp_path / "net.onnx")
    with pytest.raises(ShapeError, match=r"images \(N, H, W, C\) expected, not a tensor of shape \(2, 144\)"):
        minires.onnx.load(tmp_path / "net.onnx")(np.zeros((2, 8, 6, 3), np.float32))


def test_images_that_are_not_floating(tmp_path: Path) -> None:
    onnx.save(file([helper.make_node("Relu", ["x"], ["y"])]), tmp_path / "net.onnx")
    with pytest.raises(DTypeError, match=r"is floating, not uint8: pass x.to"):
        minires.onnx.load(tmp_path / "net.onnx")(np.zeros((2, 8, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda n: [n("Erf", ["x"], ["1"], "/head/Erf"), n("LSTM", ["1"], ["2"]), n("Relu", ["2"], ["y"])],
            r"not supported: operator Erf \(node '/head/Erf'\); operator LSTM \(node of \['2'\]\). Supported oper",
        ),
        (
            lambda n: [*(n("Erf", ["x"], [f"{i}"], f"/{i}/Erf") for i in range(9)), n("Relu", ["8"], ["y"])],
            r"not supported: operator Erf \(9 nodes, the first '/0/Erf'\). Supported",
        ),
        (
            lambda n: [n(f"Op{i}", ["x"], [f"{i}"], "a" * 999) for i in range(30)],
            r"^.{50,400}Op0 .node .{200}\); (.{200,220}\); ){18}.{200,220}\) and 10 more. Supported",
        ),
        (lambda n: [n("ConvTranspose", ["x", "k"], ["y"], pads=[0, 0, 1, 1])], "equal on both sides"),
        (lambda n: [n("Conv", ["x", "none"], ["y"])], r"node 'y' .Conv.: weights of shape \(0, 3, 1, 1\) for 1 groups"),
        (lambda n: [n("Gemm", ["x", "empty"], ["y"])], r"node 'y' .Gemm.: weights of shape \(0, 3\)"),
        (lambda n: [n("Gemm", ["x", "k"], ["y"])], r"node 'y' .Gemm.: weights of shape \(3, 2, 3, 3\)"),
        (lambda n: [n("Relu", ["x"], ["y"], domain="com.acme")], r"operator com.acme.Relu"),
        (lambda n: [n("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_LOWER")], "auto_pad='SAME_LOWER'"),
        (lambda n: [n("MaxPool", ["x"], ["y"], kernel_shape=[2])], r"MaxPool with kernel_shape=\[2\]"),
        (lambda n: [n("Gemm", ["x", "w"], ["y"], transA=1)], "Gemm with transA=1"),
        (lambda n: [n("Conv", ["x", "x"], ["y"])], "'x' must be constant, and not be computed"),
        (lambda n: [n("Conv", ["x", "w"], ["y"])], "node 'y' .Conv.: only convolution of images"),
        (lambda n: [n("MaxPool", ["x"], ["1", "i"], kernel_shape=[2, 2]), n("Cast", ["i"], ["y"], to=1)], "first out"),
        (lambda n: [n("Relu", ["nothing"], ["y"])], "damaged, onnx.checker says.*nothing"),
        (lambda n: [n("Add", ["x", "y"], ["1"]), n("Relu", ["1"], ["y"])], "damaged, onnx.checker says"),
        (lambda n: [n("Relu", ["x"], ["1"])], "onnx.checker says.*'y'"),
        (lambda n: [], "one without a graph"),
    ],
)  # fmt: skip
def test_what_is_not_supported(make: Any, message: str, rng: np.random.Generator, tmp_path: Path) -> None:
    shapes = {"w": (3, 3), "k": (3, 2, 3, 3), "none": (0, 3, 1, 1), "empty": (0, 3)}
    weights = {name: conv(rng, *shape) for name, shape in shapes.items()}
    onnx.save(file(make(helper.make_node), weights, inferred=False), tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match=message) as raised:
        minires.onnx.load(tmp_path / "net.onnx")
    assert str(tmp_path / "net.onnx") in str(raised.value)


@pytest.mark.parametrize("opset", [9, 99])
def test_opsets(opset: int, tmp_path: Path) -> None:
    onnx.save(file([helper.make_node("Relu", ["x"], ["y"])], opset=opset), tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match=rf"of opset {opset}; 13 to \d+ are read"):
        minires.onnx.load(tmp_path / "net.onnx")
