"""Models read from ONNX files: PyTorch's, in evaluation and in training form, and hand-made ones."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, nn, no_grad, optim
from minires.errors import CheckpointError, ShapeError
from minires.nn import functional as F
from tests.onnx.runtime import TOLERANCE, error, here, onnx, run
from tests.oracle import hwio, nchw, torch, torchvision

helper = onnx.helper
MODES = torch.onnx.TrainingMode


def torchs(net: Any, path: Path, training: bool, size: int = 64, **settings: Any) -> Any:
    """A net of PyTorch written by its own exporter; the net, in the mode that it is written in."""
    dtype = next(net.parameters()).dtype
    with warnings.catch_warnings():
        for message in (  # of the exporter that is asked for, and of what it says of its own doings
            "You are using the legacy TorchScript-based", "The feature will be removed", "Setting `training`",
            "ONNX Preprocess - Removing mutation", "Constant folding - Only steps=1",
        ):  # fmt: skip
            warnings.filterwarnings("ignore", message)
        warnings.filterwarnings("ignore", "Converting a tensor to a Python", torch.jit.TracerWarning)
        torch.onnx.export(
            net, torch.zeros(2, 3, size, size, dtype=dtype), path, dynamo=False, opset_version=17,
            training=MODES.TRAINING if training else MODES.EVAL, input_names=["images"],
            dynamic_axes={"images": {0: "N"}}, **({"do_constant_folding": False} if training else {}) | settings,
        )  # fmt: skip
    return net.train(training)


def resnet18(seed: int = 0) -> Any:
    """torchvision's, with statistics that are not those of a new net."""
    torch.manual_seed(seed)
    net = torchvision().models.resnet18(num_classes=10)
    with torch.no_grad():
        net.train()(torch.randn(8, 3, 64, 64))
    return net


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "with batch norm"])
def test_pytorchs_resnet_in_evaluation(fold: bool, rng: np.random.Generator, tmp_path: Path) -> None:
    """Equal to onnxruntime and to PyTorch; its layers have PyTorch's names, though folded weights lost theirs."""
    net = torchs(resnet18(), tmp_path / "net.onnx", False, do_constant_folding=fold)
    model = minires.onnx.load(tmp_path / "net.onnx")
    images = rng.standard_normal((3, 64, 64, 3)).astype(np.float32)
    assert not model.training
    with torch.no_grad():
        expected = net(nchw(images)).numpy()
    logits = here(model, images)
    print(f"beside onnxruntime {error(logits, run(tmp_path / 'net.onnx', images)):.1e}, PyTorch", end=" ")
    print(f"{error(logits, expected):.1e}")
    assert error(logits, run(tmp_path / "net.onnx", images)) <= TOLERANCE
    assert error(logits, expected) <= TOLERANCE
    names = {name.replace("weight", "bias") for name in net.state_dict() if name.endswith(("conv1.weight", "0.weight"))}
    if fold:
        assert names <= set(model.state_dict())
        assert not any("bn" in name or "onnx" in name for name in model.state_dict())
    else:
        assert set(model.state_dict()) == set(net.state_dict())


def test_pytorchs_resnet_in_training(rng: np.random.Generator, tmp_path: Path) -> None:
    """In float64: logits, every gradient, running statistics; then it goes on training, as any model here."""
    net = torchs(resnet18().double(), tmp_path / "net.onnx", True)
    model = minires.onnx.load(tmp_path / "net.onnx")
    assert model.training
    state = {name: value for name, value in net.state_dict().items() if not name.endswith("tracked")}
    for name, value in state.items():
        np.testing.assert_array_equal(model.state_dict("OIHW")[name].data, value.numpy(), name)
    images, labels = rng.standard_normal((4, 64, 64, 3)), rng.integers(0, 10, 4)
    logits, expected = model(images), net(nchw(images))
    F.cross_entropy(logits, labels).backward()
    torch.nn.functional.cross_entropy(expected, torch.from_numpy(labels)).backward()
    errors = {"logits": error(logits.data, expected.detach().numpy())}
    ours = dict(model.named_parameters())
    for name, parameter in net.named_parameters():
        grad = parameter.grad
        errors[name] = error(ours[name].grad.data, hwio(grad) if grad.ndim == 4 else grad.numpy())
    for name, buffer in net.named_buffers():
        if not name.endswith("tracked"):
            errors[name] = error(model.state_dict()[name].data, buffer.numpy())
    worst = max(errors, key=errors.__getitem__)
    print(f"worst of {len(errors)}: {errors[worst]:.1e}, {worst}")
    assert len(errors) == 1 + 62 + 40
    assert errors[worst] <= 1e-9
    sgd = optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = F.cross_entropy(model(images), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


class Head(torch.nn.Module):
    """What else PyTorch's nets are made of: a map that is flattened, dropout, weights of no layer, odd pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3, stride=2, groups=3, dilation=2)
        self.scale = torch.nn.Parameter(torch.randn(6, 1, 1))
        self.pool = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        self.up = torch.nn.ConvTranspose2d(6, 4, 3, 2, 1, 1)
        self.dropout = torch.nn.Dropout(0.25)
        self.fc = torch.nn.Linear(4 * 6 * 6, 5)

    def forward(self, x: Any) -> Any:
        y = self.pool(torch.nn.functional.hardtanh(self.conv(x), -2, 2)) * self.scale
        y = torch.nn.functional.leaky_relu(torch.cat([y, y.mean(1, keepdim=True)], 1)[:, 1:], 0.1)
        return torch.softmax(self.fc(self.dropout(torch.flatten(self.up(y), 1))), -1)


@pytest.mark.parametrize("training", [False, True])
def test_other_layers_of_pytorchs(training: bool, rng: np.random.Generator, tmp_path: Path) -> None:
    """In float64, with the gradients; the linear layer keeps PyTorch's order of a flattened map."""
    torch.manual_seed(0)
    net = torchs(Head().double(), tmp_path / "net.onnx", training, 16)
    model = minires.onnx.load(tmp_path / "net.onnx")
    assert model.training is training
    if training:
        (dropout,) = (m for m in model.modules() if isinstance(m, nn.Dropout))
        assert dropout.p == 0.25
    net.eval(), model.eval()
    images = rng.standard_normal((2, 16, 16, 3))
    y, expected = model(images), net(nchw(images))
    assert error(y.data, expected.detach().numpy()) <= 1e-12
    y[:, 1].sum().backward()
    expected[:, 1].sum().backward()
    ours = dict(model.named_parameters())
    assert set(ours) == set(dict(net.named_parameters()))
    for name, p in net.named_parameters():
        gradient = hwio(p.grad) if p.grad.ndim == 4 else p.grad.numpy()
        assert error(ours[name].grad.data, gradient) <= 1e-9, name


def file(
    nodes: list[Any], weights: dict[str, np.ndarray] | None = None, shape: Any = ("N", 3, 8, 6), opset: int = 17
) -> Any:
    """An ONNX model of some nodes, from "x" to "y"."""
    value = helper.make_tensor_value_info
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(
        nodes, "test", [value("x", onnx.TensorProto.FLOAT, shape)], [value("y", onnx.TensorProto.FLOAT, None)], arrays
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.acme", 1)], ir_version=8
    )
    made = onnx.shape_inference.infer_shapes(made)
    made.graph.output[0].type.tensor_type.shape.SetInParent()  # onnx.checker wants one, also where none was inferred
    return made


def conv(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


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
    with pytest.raises(ShapeError) as raised:
        model(conv(rng, 2, 8, 6, 4))
    assert raised.value.__notes__ == ["in node '1' (Conv) of the ONNX file"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda n: [n("Erf", ["x"], ["1"], "/head/Erf"), n("LSTM", ["1"], ["2"]), n("Relu", ["2"], ["y"])],
            r"not supported: operator Erf \(node '/head/Erf'\); operator LSTM \(the node of \['2'\]\). Supported oper",
        ),
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
    onnx.save(file(make(helper.make_node), {"w": conv(rng, 3, 3)}), tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match=message) as raised:
        minires.onnx.load(tmp_path / "net.onnx")
    assert str(tmp_path / "net.onnx") in str(raised.value)


@pytest.mark.parametrize("opset", [9, 99])
def test_opsets(opset: int, tmp_path: Path) -> None:
    onnx.save(file([helper.make_node("Relu", ["x"], ["y"])], opset=opset), tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match=rf"of opset {opset}; 13 to \d+ are read"):
        minires.onnx.load(tmp_path / "net.onnx")
