"""Each op that is exported, alone and behind a convolution: onnxruntime computes the same, and so does what is read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, nn
from minires.nn import functional as F
from minires.ops.shape import expand
from tests.onnx.runtime import error, exported, onnx, run

CONSTANT = Tensor(np.linspace(0.5, 2, 4, dtype=np.float32))
IMAGE = Tensor(np.random.default_rng(1).standard_normal((7, 6, 4)).astype(np.float32))

# from x (N, 7, 6, 4), and what it is multiplied to when it must be positive
CASES: dict[str, Callable[[Any], Any]] = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, "tanh"),
    "add": lambda x: x + x.relu(),
    "add number": lambda x: 1.5 + x,
    "add constant": lambda x: x + CONSTANT,
    "add image": lambda x: IMAGE + x,
    "sub": lambda x: 1 - x,
    "mul": lambda x: x * x.mean((1, 2), keepdim=True),
    "div": lambda x: CONSTANT / (x * x + 1),
    "pow": lambda x: (x * x + 1) ** 1.5,
    "maximum": lambda x: x.maximum(CONSTANT),
    "minimum": lambda x: x.minimum(0.25),
    "abs neg": lambda x: -(x.abs()),
    "exp": lambda x: x.exp(),
    "log": lambda x: (x * x + 0.5).log(),
    "sqrt": lambda x: (x.abs() + 0.1).sqrt(),
    "clip": lambda x: x.clip(-0.3, 0.7),
    "clip below": lambda x: x.clip(max=0.4),
    "cast": lambda x: x.to("float64").to("float32"),
    "softmax": lambda x: F.softmax(x, 3),
    "softmax of rows": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "mean": lambda x: x.mean(3),
    "mean of rows": lambda x: x.mean(1),
    "mean of all pixels": lambda x: x.mean((1, 2)),
    "sum": lambda x: x.sum((2, 3), keepdim=True),
    "amax": lambda x: x.amax((1, 3)),
    "amin": lambda x: x.amin(2, keepdim=True),
    "logsumexp": lambda x: x.logsumexp((1, 3)),
    "reshape": lambda x: x.reshape(-1, 21, 8),
    "flatten": lambda x: x.flatten(1),
    "flatten of one pixel": lambda x: x.mean((1, 2), keepdim=True).flatten(1),
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "permute and back": lambda x: x.permute(0, 2, 1, 3),
    "unsqueeze squeeze": lambda x: x.mean((1, 2)).unsqueeze(2).squeeze(2),
    "expand": lambda x: expand(x.mean(3, keepdim=True), -1, -1, -1, 5),
    "cat": lambda x: minires.cat([x, x.relu(), x[..., :1]], 3),
    "cat of rows": lambda x: minires.cat([x, x * 2], 1),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3, 4, 0), value=0.5),
    "pad channels": lambda x: F.pad(x, (2, 2)),
    "cut": lambda x: F.pad(x, (0, -1, -2, 0)),
    "stride": lambda x: x[:, ::2, 1::3],
    "backwards": lambda x: x[:, ::-1, 4:1:-2],
    "pixel": lambda x: x[:, 3, -1],
    "new axis": lambda x: x[:, None, 2, ..., None],
    "channels": lambda x: x[..., 1:3],
    "matmul": lambda x: x @ Tensor(np.ones((4, 3), np.float32)),
    "matmul of two": lambda x: x.reshape(-1, 42, 4).permute(0, 2, 1) @ x.reshape(-1, 42, 4),
    "max_pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max_pool same": lambda x: F.max_pool2d(x - 5, (2, 3), (2, 1), "same"),
    "max_pool ceil": lambda x: F.max_pool2d(x - 5, 3, 3, ceil_mode=True),
    "max_pool dilated": lambda x: F.max_pool2d(x, 2, 1, dilation=2),
    "max_pool padded far": lambda x: F.max_pool2d(x - 5, (2, 3), 1, "same", dilation=(4, 1)),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "avg_pool same": lambda x: F.avg_pool2d(x, 2, 2, "same"),
    "avg_pool uneven": lambda x: F.avg_pool2d(x, 4, 2, ((2, 1), (0, 2))),
    "avg_pool ceil": lambda x: F.avg_pool2d(x, 3, 3, 1, ceil_mode=True),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, (7, 3)),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, (1, 2)),
    "layer_norm": lambda x: F.layer_norm(x, 4),
    "layer_norm of pixels": lambda x: F.layer_norm(x, (7, 6, 4), IMAGE),
    "group_norm": lambda x: F.group_norm(x, 2, CONSTANT, -CONSTANT),
    "dropout": lambda x: F.dropout(x, 0.5, training=False) + 1,
    "nothing": lambda x: x,
}


class Net(nn.Module):
    """A function; after a convolution, so that the graph has its images as (N, C, H, W); or before a linear layer."""

    def __init__(self, function: Callable[[Any], Any], conv: bool, rng: np.random.Generator) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(4, 4, 3, padding=1, generator=rng) if conv else nn.Identity()

    def forward(self, x: Any) -> Any:
        return self.function(self.conv(x))


@pytest.mark.parametrize("conv", [False, True], ids=["alone", "behind a convolution"])
@pytest.mark.parametrize("name", CASES)
def test_op(name: str, conv: bool, rng: np.random.Generator, tmp_path: Path) -> None:
    images = rng.standard_normal((4, 7, 6, 4)).astype(np.float32)
    exact = "_norm" not in name or name.startswith("log")  # norms by group are written as their formula
    exported(Net(CASES[name], conv, rng), images, tmp_path / "net.onnx", exact)


LAYERS: dict[str, Callable[[np.random.Generator], nn.Module]] = {
    "same": lambda g: nn.Conv2d(4, 6, (2, 3), (2, 3), "same", generator=g),
    "dilated groups": lambda g: nn.Conv2d(4, 6, 2, 1, ((0, 2), (1, 0)), (2, 1), 2, generator=g),
    "no bias": lambda g: nn.Conv2d(4, 5, 1, 2, bias=False, generator=g),
    "transposed": lambda g: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, generator=g),
    "linear of pixels": lambda g: nn.Linear(4, 3, generator=g),
    "linear without bias": lambda g: nn.Linear(4, 3, bias=False, generator=g),
    "flattened": lambda g: nn.Sequential(
        nn.Conv2d(4, 5, 3, generator=g), nn.Flatten(), nn.Linear(5 * 5 * 4, 3, generator=g)
    ),
    "batch norm of rows": lambda g: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm2d(4), nn.Dropout(), nn.Linear(4, 2, generator=g)
    ),
    "norms": lambda g: nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.LayerNorm((7, 6, 4), bias=False)),
    "twice": lambda g: nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1, generator=g)] * 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    model, images = nn.Sequential(LAYERS[name](rng)), rng.standard_normal((3, 7, 6, 4)).astype(np.float32)
    model(images)
    exported(model, images, tmp_path / "net.onnx", exact=name != "norms")


class Fused(nn.Module):
    """Each way in which batch norm and convolution take what follows them."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1, generator=rng), nn.BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        y = self.norm(self.conv(x), add=x, relu=True)
        y = self.norm(y, add=x) + self.norm(y, relu=True)
        z = F.conv2d(x, self.conv.weight - self.conv.weight.mean((0, 1, 2)), None, 1, 1, add=y, relu=True)
        return F.conv2d(z, self.conv.weight, self.conv.bias, 1, 1, add=x)


def test_fused_ops_and_computed_weights(rng: np.random.Generator, tmp_path: Path) -> None:
    """Weights of a convolution that are computed with: their axes are in another order in the file."""
    model, images = Fused(rng), rng.standard_normal((3, 7, 6, 4)).astype(np.float32)
    model(images)
    minires.onnx.export(model, tmp_path / "net.onnx", (7, 6, 4))
    assert error(run(tmp_path / "net.onnx", images), model.eval()(images).data.transpose(0, 3, 1, 2)) <= 5e-6


def test_float64(rng: np.random.Generator, tmp_path: Path) -> None:
    """onnxruntime has no convolution in float64, onnx's own evaluator has."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, generator=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(4 * 5 * 4, 2, generator=rng)).to("float64")
    images = rng.standard_normal((3, 7, 6, 3))
    model(images)
    minires.onnx.export(model, tmp_path / "net.onnx", (7, 6, 3))
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator(onnx.load(tmp_path / "net.onnx"))
    (expected,) = evaluator.run(None, {"images": images.transpose(0, 3, 1, 2)})
    again = minires.onnx.load(tmp_path / "net.onnx")
    assert expected.dtype == again(images).dtype == np.float64
    assert error(model.eval()(images).data, expected) <= 1e-12
    np.testing.assert_array_equal(again(images).data, model(images).data)
