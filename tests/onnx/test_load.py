"""Models read from ONNX files: PyTorch's, in evaluation and in training form."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import nn, optim
from minires.nn import functional as F
from tests.onnx.runtime import TOLERANCE, error, here, run
from tests.oracle import hwio, nchw, torch, torchvision

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


def test_pytorchs_odd_names(tmp_path: Path) -> None:
    """Modules that torchvision's regnet calls block1-0 keep their names."""
    net = torch.nn.Sequential()
    net.add_module("block1-0", torch.nn.Conv2d(3, 2, 1))
    net.add_module("my layer", torch.nn.Conv2d(2, 2, 1))
    torchs(net, tmp_path / "net.onnx", False)
    assert set(minires.onnx.load(tmp_path / "net.onnx").state_dict()) == set(net.state_dict())
