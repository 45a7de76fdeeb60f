"""The summary of a model: shapes, parameters, MACs, bytes, receptive fields; and the command that prints it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest

from minires import Tensor, models, nn, no_grad
from minires.__main__ import main
from minires.errors import ArgumentError, ShapeError
from minires.nn import functional as F
from minires.summary import Layer, summarize


def layers(model: nn.Module, *shape: int) -> dict[str, Layer]:
    return {layer.name: layer for layer in summarize(model, shape).layers}


def test_layers_by_hand() -> None:
    """Uneven sizes, groups, dilation and a bias: 14 x 9 pixels of 4 channels."""
    net = nn.Sequential(
        nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 0), groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, dilation=2, padding=2, bias=False),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3 * 2 * 8, 5),
    )
    rows = layers(net, 14, 9, 4)
    shapes = [layer.output_shape for layer in rows.values()]
    assert shapes == [(7, 5, 6), (7, 5, 6), (7, 5, 8), (3, 2, 8), (48,), (5,)]
    assert [layer.parameters for layer in rows.values()] == [3 * 5 * 2 * 6 + 6, 0, 9 * 6 * 8, 0, 0, 48 * 5 + 5]
    assert [layer.macs for layer in rows.values()] == [35 * 6 * 15 * 2, 0, 35 * 8 * 9 * 6, 0, 0, 48 * 5]
    assert [layer.activation_bytes for layer in rows.values()] == [840, 840, 1120, 192, 192, 20]
    # rows: 3, then 3 + 4 steps of 2, then one more of 2; columns: 5, then 5 + 4, then one more
    fields = [layer.receptive_field for layer in rows.values()]
    assert fields == [(3, 5), (3, 5), (11, 9), (13, 10), None, None]
    assert [layer.kind for layer in rows.values()] == [
        "Conv2d 3x5", "ReLU", "Conv2d 3x3", "MaxPool2d 2x2", "Flatten", "Linear",
    ]  # fmt: skip


def field_by_gradient(model: nn.Module, name: str, height: int, width: int) -> tuple[int, int]:
    """The extent of the pixels that move the middle of a layer's output."""
    kept: list[Tensor] = []
    handle = dict(model.named_modules())[name].register_forward_hook(lambda module, inputs, y: kept.append(y))
    x = Tensor(np.random.default_rng(0).standard_normal((1, height, width, 3)), requires_grad=True)
    model.to("float64").eval()(x)
    handle.remove()
    (y,) = kept
    y[:, y.shape[1] // 2, y.shape[2] // 2].sum().backward()
    rows, columns = (np.flatnonzero(abs(x.grad.data).sum(axis=axes)) for axes in ((0, 2, 3), (0, 1, 3)))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize("shortcut", ["A", "B", "maxpool"])
@pytest.mark.parametrize("name", ["layer1.0.conv2", "layer2.0.conv1", "layer2.1.conv2", "layer3.0.downsample"])
def test_receptive_fields_are_those_of_the_gradient(shortcut: str, name: str, rng: np.random.Generator) -> None:
    """Pooling and ReLU pick pixels, so that a gradient may reach less; average pooling and no ReLU reach all."""
    net = models.ResNet((2, 2, 1), 10, widths=(4, 6, 8), shortcut=shortcut, batch_norm=False, generator=rng)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = abs(module.weight.data)
            module.bias.data = module.bias.data + 100  # every ReLU lets pass
    if shortcut == "maxpool":
        for module in net.modules():
            for key, child in list(module._modules.items()):
                if isinstance(child, nn.MaxPool2d):
                    setattr(module, key, nn.AvgPool2d(3, 2, 1))
    found = summarize(net, (64, 48, 3))
    names = [layer.name for layer in found.layers if layer.name.startswith(name)]
    expected = {layer.name: layer.receptive_field for layer in found.layers}[names[-1]]
    assert field_by_gradient(net, name, 64, 48) == expected


@pytest.mark.parametrize(
    ("layer", "field", "macs"),
    [
        (nn.ConvTranspose2d(3, 4, 3, padding=1), (3, 3), 48 * 3 * 9 * 4),
        (nn.ConvTranspose2d(3, 4, (4, 5), stride=(2, 3)), (2, 2), 48 * 3 * 20 * 4),
        (nn.Linear(3, 5), (1, 1), 48 * 15),
        (nn.LayerNorm(3), (1, 1), 0),
        (nn.LayerNorm((6, 8, 3)), None, 0),
        (nn.GroupNorm(1, 3), None, 0),
        (nn.AvgPool2d((3, 2), 2), (3, 2), 0),
        (nn.AdaptiveAvgPool2d(1), None, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_alone(layer: nn.Module, field: Any, macs: int) -> None:
    """On a map of 6x8 pixels; the field beside the gradient of one output pixel, where that is not the whole map."""
    found = summarize(layer, (6, 8, 3)).layers[0]
    assert (found.receptive_field, found.macs) == (field, macs)
    if field is not None:
        big = summarize(nn.Sequential(layer), (24, 20, 3)).layers[0]
        reached = field_by_gradient(nn.Sequential(layer), "0", 24, 20)
        assert big.receptive_field == field
        assert all(a <= b for a, b in zip(reached, field, strict=True))


def test_what_passes_a_field_on_and_what_does_not() -> None:
    class Net(nn.Module):
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.conv, self.relu, self.function = nn.Conv2d(2, 2, 3), nn.ReLU(), function

        def forward(self, x: Any) -> Any:
            return self.relu(self.function(self.conv(x)))

    def field(function: Any) -> Any:
        return summarize(Net(function), (9, 9, 2)).layers[1].receptive_field

    assert field(lambda x: x * 2 + x) == (3, 3)
    assert field(lambda x: F.pad(x, (0, 0, 1, 1, 2, 2))) == (3, 3)
    assert field(lambda x: x.permute(0, 3, 1, 2)) == (3, 3)
    assert field(lambda x: F.max_pool2d(x[:, ::2, ::3], 2)) == (5, 6)
    assert field(lambda x: x.flatten(1)) is None
    assert field(lambda x: x.mean((1, 2), keepdim=True) + x) is None
    attention = Net(lambda x: np.ones((7, 7), np.float32) @ x)
    assert summarize(attention, (9, 9, 2)).layers[1].receptive_field is None
    assert summarize(attention, (9, 9, 2)).macs == 49 * 2 * 18 + 7 * 7 * 7 * 2


def test_several_outputs_and_a_cut_graph() -> None:
    class Net(nn.Module):
        def __init__(self, cut: bool) -> None:
            super().__init__()
            self.a, self.b, self.cut = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 1), cut

        def forward(self, x: Any) -> Any:
            y = self.a(x)
            with no_grad() if self.cut else contextlib.nullcontext():
                return y, self.b(y)

    assert summarize(Net(False), (4, 4, 2)).macs == 16 * (6 + 12)
    with pytest.raises(ArgumentError, match="what 'b' gives is cut off from the graph, by no_grad"):
        summarize(Net(True), (4, 4, 2))


def test_float64_takes_twice_the_bytes() -> None:
    single, double = summarize(nn.Conv2d(2, 3, 1), (4, 4, 2)), summarize(nn.Conv2d(2, 3, 1).to("float64"), (4, 4, 2))
    assert (single.dtype, single.parameter_bytes, single.activation_bytes) == ("float32", 36, 192)
    assert (double.dtype, double.parameter_bytes, double.activation_bytes) == ("float64", 72, 384)
    assert str(double).endswith("in float64")


def test_work_outside_of_layers_counts() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(np.ones((3, 3, 2, 4), np.float32))
            self.relu = nn.ReLU()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            y = self.relu(F.conv2d(x, self.w, padding=1)).mean((1, 2))
            return self.fc(y) @ np.ones((3, 2), np.float32)

    found = summarize(Net(), (5, 6, 2))
    assert [(layer.name, layer.macs) for layer in found.layers] == [("relu", 30 * 4 * 18), ("fc", 12)]
    assert found.macs == 30 * 4 * 18 + 12 + 6
    assert found.parameters == 72 + 15
    assert found.layers[0].receptive_field == (3, 3)


def test_a_shared_layer_is_counted_once_and_listed_twice() -> None:
    shared = nn.Conv2d(2, 2, 3, padding=1)
    found = summarize(nn.Sequential(shared, nn.ReLU(), shared), (4, 4, 2))
    assert [layer.parameters for layer in found.layers] == [38, 0, 0]
    assert [layer.macs for layer in found.layers] == [16 * 36, 0, 16 * 36]
    assert found.parameters == 38


def test_the_model_stays_as_it_was(rng: np.random.Generator) -> None:
    net = models.ResNet((1, 1), 10, widths=(4, 8), generator=rng)
    net.layer1.eval()
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    summarize(net, (16, 16, 3))
    assert [module.training for module in net.modules()] == modes
    assert all((before[name] == value.numpy()).all() for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(ShapeError):
        summarize(net, (16, 16, 5))
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks for module in net.modules())


def test_one_pixel_too_early_is_flagged() -> None:
    found = summarize(models.build("resnet18"), (32, 32, 3))
    assert [layer.name for layer in found.layers if layer.wasted] == [
        "layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2",
    ]  # fmt: skip
    assert found.warnings == [
        "32x32 images are 1x1 before layer4.0.conv2: 3 of 17 convolutions larger than 1x1 see one pixel and padding. "
        "Use larger images, or fewer strides"
    ]
    assert not summarize(models.build("resnet18"), (64, 64, 3)).warnings


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["minires", *arguments])
    main()


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "summary", "resnet20", "--input", "32x32x3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "MACs", "bytes", "receptive", "field"]
    assert lines[1].split() == ["conv1", "Conv2d", "3x3", "32x32x16", "432", "442,368", "65,536", "3x3"]
    total = "32x32x3: 269,722 parameters (1.1 MB), 40.6 M MACs (0.08 GFLOP), outputs of 1.6 MB an image, in float32"
    assert lines[-1] == total
    run(monkeypatch, "summary", "keras_resnet34", "--num-classes", "5")
    out = capsys.readouterr().out
    assert "1572851x1572851  1x1 map!" in out
    assert "Warning: 224x224 images are 1x1 before units.5.conv2: 21 of 33 convolutions" in out


def test_the_command_lists_all_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = {name: models.BUILDERS[name] for name in ("resnet18", "plain20", "keras_resnet34_corrected")}
    monkeypatch.setattr(models, "BUILDERS", few)
    run(monkeypatch, "summary")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["model", "input", "classes", "parameters", "M", "MACs"],
        ["resnet18", "224x224x3", "1000", "11,689,512", "1,814.1"],
        ["plain20", "32x32x3", "10", "269,722", "40.6"],
        ["keras_resnet34_corrected", "224x224x3", "1000", "21,797,672", "3,663.8"],
    ]


def test_the_command_in_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--input", "16x12x1", "--shortcut", "C", "--no-batch-norm", "--num-classes", "4"]
    run(monkeypatch, "summary", "resnet20", "--json", *options)
    found = json.loads(capsys.readouterr().out)
    net = models.build("resnet20", shortcut="C", batch_norm=False, num_classes=4, in_channels=1)
    assert found["parameters"] == sum(p.numel() for p in net.parameters())
    assert found["layers"][-1]["output_shape"] == [4]
    assert found["layers"][0]["receptive_field"] == [3, 3]
    assert found["layers"][0]["parameters"] == 9 * 16 + 16
    assert found["warnings"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18", "--input", "32x32"], "'32x32' is not HEIGHTxWIDTHxCHANNELS, such as 32x32x3"),
        (["resnet18", "--input", "0x32x3"], "0 is less than 1"),
        (["resnet18", "--input", "axbxc"], "'axbxc' is not of three numbers, such as 32x32x3"),
        (["resnet18", "--input", "3x224x224"], "'3x224x224' looks like PyTorch's order: say 224x224x3"),
        (["resnet18", "--stem", "mnist"], "invalid choice: 'mnist'"),
    ],
)
def test_arguments_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "summary", *arguments)
    assert message in capsys.readouterr().err


def test_commands_that_do_not_go_together(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArgumentError, match="options are for one model: name it"):
        run(monkeypatch, "summary", "--num-classes", "3")
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "--choices", "resnet18", "summary")
    assert capsys.readouterr().err == "minires: error: --choices and summary are two commands (see --help)\n"
    with pytest.raises(ArgumentError, match="an image of 1000000x1000000x3 needs too much memory"):
        run(monkeypatch, "summary", "resnet20", "--input", "1000000x1000000x3")
