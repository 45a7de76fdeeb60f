"""Every builder's model as an ONNX file; what is refused; what export leaves as it was."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires
from minires import Tensor, models, nn, no_grad
from minires.errors import ArgumentError, MiniresError
from minires.nn import functional as F
from minires.onnx.converters import CONVERTERS
from minires.onnx.layers import LAYERS
from minires.onnx.operators import OPERATORS
from tests.onnx.runtime import TOLERANCE, error, exported, here, onnx, run

QUICK = {"resnet18", "resnet20", "resnet110", "plain20", "preact_resnet20"}
OVERFLOWING = {"resnet1202", "preact_resnet1001"}  # new ones, whose batch norm has no statistics yet: to NaN
SETTINGS: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in models.BUILDERS]
SETTINGS += [("resnet20", {"shortcut": shortcut}) for shortcut in ("B", "C", "maxpool")]
SETTINGS += [("resnet20", {"batch_norm": False}), ("preact_resnet20", {"batch_norm": False, "shortcut": "C"})]
SETTINGS += [("resnet20", {"in_channels": 1}), ("resnet50", {"shortcut": "A"})]


def settled(model: nn.Module, size: tuple[int, int], rng: np.random.Generator) -> nn.Module:
    """The model with batch norms that are neither new nor blind: other weights in each, and the statistics of a batch.

    In an untrained net of 1001 layers a rounding error grows to 5e-3 of the largest logit, in onnxruntime as here. As
    in a trained one it does not if residual branches are small and most units are on: weights 0.3, biases 0.6.
    """
    channels = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with no_grad():
        for norm in norms:
            norm.weight[...] = rng.uniform(0.2, 0.4, norm.num_features).astype(np.float32)
            norm.bias[...] = (0.6 + 0.1 * rng.standard_normal(norm.num_features)).astype(np.float32)
            norm.momentum = 0.9
        model.train()(rng.standard_normal((8, *size, channels)).astype(np.float32))
    return model


def sizes_of(model: nn.Module) -> list[tuple[int, int]]:
    imagenet = any(isinstance(m, nn.Conv2d) and m.kernel_size == (7, 7) for m in model.modules())
    return [(32, 40), (48, 32)] if imagenet else [(16, 20), (24, 16)]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param(
            n, s, marks=[] if n in QUICK else [pytest.mark.slow], id=f"{n}{''.join(f'-{v}' for v in s.values())}"
        )
        for n, s in SETTINGS
    ],
)
def test_every_model(name: str, settings: dict[str, Any], rng: np.random.Generator, tmp_path: Path) -> None:
    """New and settled, at two sizes, for a batch and for one image; with each weight, and each layer's node."""
    new = models.build(name, **({"num_classes": 10, "generator": rng} | settings))
    for size in sizes_of(new) if name not in OVERFLOWING else []:
        images = rng.standard_normal((4, *size, settings.get("in_channels", 3))).astype(np.float32)
        minires.onnx.export(new, tmp_path / "new.onnx", images.shape[1:])
        assert error(run(tmp_path / "new.onnx", images), here(new, images)) <= TOLERANCE
    model = models.build(name, **({"num_classes": 10, "generator": rng} | settings))
    for size in sizes_of(model):
        settled(model, size, rng)
        images = rng.standard_normal((4, *size, settings.get("in_channels", 3))).astype(np.float32)
        file = exported(model, images, tmp_path / "net.onnx")
        assert {w.name: tuple(w.dims) for w in file.graph.initializer} == {
            k: v.shape for k, v in model.state_dict("OIHW").items() if not k.endswith("num_batches_tracked")
        }
        ops = Counter(node.op_type for node in file.graph.node)
        layers = Counter(type(m) for m in model.modules())
        assert (ops["Conv"], ops["BatchNormalization"]) == (layers[nn.Conv2d], layers[nn.BatchNorm2d])
        assert ops["Transpose"] == 0


def test_a_wrong_weight_shows(rng: np.random.Generator, tmp_path: Path) -> None:
    """In the deepest net of the tests above, the error of one weight in its first layers is beyond the tolerance."""
    model = settled(models.build("preact_resnet164", generator=rng), (16, 20), rng)
    images = rng.standard_normal((4, 16, 20, 3)).astype(np.float32)
    minires.onnx.export(model, tmp_path / "net.onnx", (16, 20, 3))
    assert error(run(tmp_path / "net.onnx", images), here(model, images)) <= TOLERANCE
    with no_grad():
        model.conv1.weight[0, 0, 0, 0] += 0.1
    assert error(run(tmp_path / "net.onnx", images), here(model, images)) > 10 * TOLERANCE


def test_the_file(rng: np.random.Generator, tmp_path: Path) -> None:
    """Its opset, its shapes with any number of images, whose it is, and the words that go along."""
    model = models.build("resnet20", generator=rng)
    path = tmp_path / "new" / "net.onnx"
    minires.onnx.export(model, path, (32, 24, 3), metadata={"mean": "0.5, 0.5, 0.5"})
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", minires.onnx.OPSET)]
    assert (file.producer_name, file.producer_version) == ("minires", minires.__version__)
    (given,), (made,) = file.graph.input, file.graph.output
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (given, made)]
    assert (given.name, made.name) == ("images", "logits")
    assert shapes == [["N", 3, 32, 24], ["N", 10]]
    assert {p.key: p.value for p in file.metadata_props}["mean"] == "0.5, 0.5, 0.5"
    assert minires.onnx.load(path).metadata["mean"] == "0.5, 0.5, 0.5"
    assert "/layer1/0/conv1/Conv" in {node.name for node in file.graph.node}


def test_the_model_stays_as_it_is(rng: np.random.Generator, tmp_path: Path) -> None:
    """Modes, statistics, gradients, hooks and the global generator; also where export fails half-way."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, generator=rng), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(generator=rng)
    ).train()
    model[1].eval()
    F.relu(model(rng.standard_normal((2, 5, 5, 3)).astype(np.float32))).sum().backward()
    before = {name: value.data.copy() for name, value in model.state_dict().items()}
    gradients = [p.grad.data.copy() for p in model.parameters() if p.grad is not None]
    draws, versions = rng.bit_generator.state, [p.version.count for p in [*model.parameters(), *model.buffers()]]
    minires.onnx.export(model, tmp_path / "net.onnx", (5, 5, 3))
    model.append(Refused(lambda x: F.batch_norm(x, None, None, training=True)))
    with pytest.raises(ArgumentError, match="BatchNorm"):
        minires.onnx.export(model, tmp_path / "net.onnx", (5, 5, 3))
    del model[4]
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert all((before[name] == value.data).all() for name, value in model.state_dict().items())
    assert all((g == p.grad.data).all() for g, p in zip(gradients, (model[0].weight, model[0].bias), strict=False))
    assert rng.bit_generator.state == draws
    assert [p.version.count for p in [*model.parameters(), *model.buffers()]] == versions
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def with_parameter(name: str) -> nn.Module:
    model = nn.ReLU()
    model.register_parameter(name, nn.Parameter(np.ones(3, np.float32)))
    return model


class Refused(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.flags = nn.Buffer(np.arange(3) > 0)

    def forward(self, x: Any) -> Any:
        return self.function(x)


def in_place(x: Tensor) -> Tensor:
    y = F.relu(x)
    y += 1
    return y * 2


def in_place_of_input(x: Tensor) -> Tensor:
    x[:, 0] = 0
    return x * 2


def without_recording(x: Tensor) -> Tensor:
    with no_grad():
        return F.conv2d(x, np.ones((1, 1, 3, 2), np.float32))


class Written(nn.Module):
    """Writes into a buffer or a parameter of its own; or replaces the buffer's array."""

    def __init__(self, name: str, replaced: bool = False) -> None:
        super().__init__()
        self.name, self.replaced = name, replaced
        self.calls, self.weight = nn.Buffer(np.ones(1, np.float32)), nn.Parameter(np.ones(1, np.float32))

    def forward(self, x: Any) -> Any:
        with no_grad():
            if self.replaced:
                self.calls.data = self.calls.data + 1
            else:
                getattr(self, self.name)[...] += 1
        return x * self.calls * self.weight


@pytest.mark.parametrize(("name", "replaced"), [("calls", False), ("weight", False), ("calls", True)])
def test_state_that_is_written(name: str, replaced: bool, tmp_path: Path) -> None:
    """It is refused, and has its value again."""
    model = nn.Sequential(Written(name, replaced))
    with pytest.raises(ArgumentError, match=f"writes into '0.{name}' in place"):
        minires.onnx.export(model, tmp_path / "net.onnx", (8, 8, 3))
    assert [t.data.tolist() for t in model.state_dict().values()] == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.var(), r"Var\(.*\) cannot be exported; ops that can: .*Conv2d.*, in layer '0'"),
        (lambda x: F.dropout(x), r"Dropout\(p=0.5.*in layer '0'"),
        (lambda x: F.adaptive_avg_pool2d(x, 3), r"AdaptiveAvgPool2d\(output_size=\(3, 3\)\) on 8x8: .* divide"),
        (lambda x: F.batch_norm(x.mean(1), Tensor(np.zeros(3, "f4")), Tensor(np.ones(3, "f4"))), r"shape \(2, 8, 3\)"),
        (lambda x: x + Tensor(x.data.mean()), r"/0/Constant.* differs for batches of 2 and 3: .*of .data"),
        (lambda x: x * (1 / x.shape[0]), r"/0/Constant.* differs for batches of 2 and 3: the model uses the batch's"),
        (lambda x: x.reshape(-1, x.shape[0]), r"differs for batches of 2 and 3"),
        (lambda x: x if x.shape[0] == 2 else x.relu(), r"differs for batches of 2 and 3"),
        (lambda x: (x, x), r"must return one tensor, not a tuple"),
        (in_place, r"writes into a result in place"),
        (in_place_of_input, r"writes into its input in place"),
        (lambda x: in_place_of_input(x.reshape(-1, 192)), r"writes into its input in place"),
        (without_recording, r"differs for batches of 2 and 3: .* under no_grad"),
        (lambda x: F.conv_transpose2d(x, np.ones((1, 1, 1, 3), "f4"), None, 1, 0, 1, 1, 2), "output_padding less than"),
    ],
)  # fmt: skip
def test_refused(function: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(MiniresError, match=message):
        minires.onnx.export(nn.Sequential(Refused(function)), tmp_path / "net.onnx", (8, 8, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((nn.Conv2d(3, 1, 1).to("float16"), (8, 8, 3)), r"the model is float16; convert it with model.to\('float32'\)"),
        ((nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 1, 1).to("float64")), (8, 8, 3)), "is float32, float64"),
        ((nn.ReLU(), (8, 8)), r"image_shape must be \(H, W, C\), not \(8, 8\)"),
        ((nn.ReLU(), (8, 0, 3)), r"image_shape must be"),
        (("net", (8, 8, 3)), "takes a model, then a path, not a str"),
        ((nn.CrossEntropyLoss(), (8, 8, 3)), "CrossEntropyLoss.forward must take the images alone: missing .*'target'"),
        ((with_parameter("images"), (8, 8, 3)), "'images' is the file's input or output: give the parameter another"),
        ((with_parameter("logits"), (8, 8, 3)), "'logits' is the file's input or output: give the parameter another"),
    ],
)
def test_arguments_refused(arguments: Any, message: str, tmp_path: Path) -> None:
    model, shape = arguments
    with pytest.raises(ArgumentError, match=message):
        minires.onnx.export(model, tmp_path / "net.onnx", shape)


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, "words"])
def test_metadata_refused(metadata: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="metadata must map words to words, not"):
        minires.onnx.export(nn.ReLU(), tmp_path / "net.onnx", (8, 8, 3), metadata=metadata)


def test_more_than_an_onnx_file_holds(tmp_path: Path) -> None:
    model = nn.Sequential(nn.ReLU())
    model.weight = nn.Parameter(np.broadcast_to(np.float32(0), (2**29, 1)))  # 2 GiB that take no memory
    with pytest.raises(ArgumentError, match=r"2.0 GiB of weights, but an ONNX file holds 2 GiB"):
        minires.onnx.export(model, tmp_path / "net.onnx", (8, 8, 3))


def test_the_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    minires.onnx.export(nn.ReLU(), path, (8, 8, 3))
    before = path.read_bytes()

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        minires.onnx.export(nn.Sigmoid(), path, (8, 8, 3))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == "onnx" and not (arguments and len(arguments) > 3 and arguments[3]):
            raise ImportError("No module named 'onnx'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ArgumentError, match=re.escape("pip install 'minires[onnx]'")):
        minires.onnx.export(nn.ReLU(), tmp_path / "net.onnx", (8, 8, 3))
    with pytest.raises(ArgumentError, match=re.escape("pip install 'minires[onnx]'")):
        minires.onnx.load(tmp_path / "net.onnx")


def test_onnx_is_imported_when_it_is_used() -> None:
    code = "import sys, minires; minires.onnx.export; print('onnx' in sys.modules, 'minires.onnx' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]


def test_the_page_lists_what_there_is() -> None:
    """docs/onnx.md names each Function that is exported and each operator that is read, and no other."""
    page = (Path(__file__).parents[2] / "docs/onnx.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", page, re.MULTILINE)[1:]  # without the head
    functions = [name for row, _ in rows for name in re.findall(r"`(\w+)`", row)]
    operators = {name for _, row in rows for name in re.findall(r"`(\w+)`", row)}
    assert sorted(functions) == sorted(f.__name__ for f in CONVERTERS)
    also = re.search(r"^Read, but never written: (.*?)\.$", page, re.MULTILINE | re.DOTALL)
    assert also is not None
    read = {*OPERATORS, *LAYERS}
    assert operators | set(re.findall(r"`(\w+)`", also[1])) == read
    assert f"opset {minires.onnx.OPSET}" in page
