"""The convolution benchmark: what it walks, that its contenders compute the same, and the commands, on tiny sizes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_conv, layers, peers, report
from benchmarks.layers import Layer
from minires.errors import ArgumentError
from minires.kernels import ConvGeometry, registry

EXAMPLE = Path(__file__).parents[2] / "docs" / "own_kernel.py"


def test_resnet18_as_walked():
    walked = layers.walk("resnet18", 32)
    assert sum(len(layer.names) for layer in walked) == 20
    assert len(walked) == 11
    assert sum(layer.work(1).flops * len(layer.names) for layer in walked) == 2 * 555_417_600  # without the classifier
    assert walked[1].describe(4) == "layer1.0.conv1 x4: 4x32x32x64 to 64, 3x3/1"
    assert layers.walk("resnet18", 224)[0].describe(1) == "conv1: 1x224x224x3 to 64, 7x7/2"


@pytest.mark.parametrize("size", [32, 64])
def test_torchvision_is_walked_alike(size, monkeypatch):
    ours = layers.walk("resnet18", size)
    monkeypatch.setattr(layers.models, "BUILDERS", {})
    theirs = layers.walk("resnet18", size)
    assert set(theirs) == set(ours)
    assert {name for layer in theirs for name in layer.names} == {name for layer in ours for name in layer.names}


def test_resnet50_comes_from_torchvision():
    walked = layers.walk("resnet50", 224)
    assert sum(len(layer.names) for layer in walked) == 53
    assert sum(layer.work(1).flops * len(layer.names) for layer in walked) == 2 * 4_087_136_256


def test_unknown_models_and_layers():
    with pytest.raises(ArgumentError, match="neither minires nor torchvision has a model 'resnet19'"):
        layers.walk("resnet19", 32)
    walked = [Layer((4, 4), (1, 1, 2, 2), ConvGeometry(), ["conv1", "layer1.0"])]
    assert layers.matching(walked, ["layer1"]) == walked
    with pytest.raises(ArgumentError, match=r"--layers layer2: no layer's name begins so; there are conv1, layer1\.0"):
        layers.matching(walked, ["conv1", "layer2"])


def test_work():
    layer = Layer((6, 5), (3, 2, 4, 7), ConvGeometry((2, 1), (1, 1, 0, 0)), ["a"])
    assert layer.y_shape(3) == (3, 3, 4, 7)
    assert layer.work(3) == (2 * 3 * 3 * 4 * 7 * 3 * 2 * 4, 4 * (3 * 6 * 5 * 4 + 3 * 2 * 4 * 7 + 3 * 3 * 4 * 7))


def test_what_winograd_executes():
    layer = Layer((7, 6), (3, 3, 4, 5), ConvGeometry(padding=(1, 1, 1, 1)), ["a"])
    assert bench_conv.executed("im2col", "fwd", layer, 2) == layer.work(2).flops
    assert bench_conv.executed("winograd2", "fwd", layer, 2) == 2 * (2 * 4 * 3) * 16 * 4 * 5
    assert bench_conv.executed("winograd4", "gw", layer, 2) == 2 * (2 * 2 * 2) * 36 * 4 * 5


@pytest.mark.parametrize("what", bench_conv.PASSES)
def test_the_reference_by_parts_is_the_portable_kernel(what, monkeypatch):
    monkeypatch.setattr(bench_conv, "REFERENCE_BYTES", 1)
    layer = Layer((6, 5), (3, 2, 4, 7), ConvGeometry((2, 1), (1, 1, 0, 0)), ["a"])
    operands = [a.astype(np.float64) for a in bench_conv.draw(layer, 3, np.random.default_rng(0))]
    arguments = bench_conv.kernel_arguments(what, *operands, layer.geometry)
    whole = registry[bench_conv.PASSES[what]].portable.function(*arguments)
    (parts,) = bench_conv.reference(what, *operands, layer.geometry)
    np.testing.assert_allclose(parts, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("what", bench_conv.PASSES)
def test_pytorch_computes_the_same(what):
    layer = Layer((6, 5), (3, 2, 4, 7), ConvGeometry((2, 1), (1, 1, 2, 2), (1, 2)), ["a"])
    operands = (*bench_conv.draw(layer, 3, np.random.default_rng(0)), layer.geometry)
    contenders = bench_conv.pytorch(what, *operands)
    assert list(contenders) == list(peers.LAYOUTS)
    for contender in contenders.values():
        (right,) = bench_conv.reference(what, *operands)
        np.testing.assert_allclose(contender.arrays(contender.call()), right, rtol=0, atol=1e-4)
    assert bench_conv.pytorch(what, *operands[:3], ConvGeometry(padding=(0, 1, 0, 1))) == {}


def run(monkeypatch, *options: str) -> None:
    quick = ["--batch", "1", "--rounds", "1", "--settle", "0", "--layers", "layer4.0.downsample"]
    monkeypatch.setattr(sys, "argv", ["bench_conv", *quick, *options])
    bench_conv.main()


def test_the_command(monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--json", str(tmp_path / "conv.json"))
    saved = report.load(tmp_path / "conv.json")
    assert saved.complete
    assert saved.peaks is not None
    assert {row.name for row in saved.rows} == set(bench_conv.PASSES.values())
    for name in bench_conv.PASSES.values():
        rows = [row for row in saved.rows if row.name == name]
        assert [row.contender for row in rows][:3] == [*peers.LAYOUTS, "portable"]
        assert sum(row.chosen for row in rows) == 1
        assert all(row.error is not None and row.error.max < 1e-4 for row in rows)
    assert "all layers together, ms:" in capsys.readouterr().out


def test_without_pytorch(monkeypatch, capsys):
    monkeypatch.setattr(peers, "find_torch", lambda: None)
    run(monkeypatch, "--only", "fwd", "--variants", "portable")
    shown = capsys.readouterr().out
    assert "portable" in shown
    assert "NCHW" not in shown


def test_unknown_variants(monkeypatch):
    with pytest.raises(ArgumentError, match=r"--variants other: conv2d, .* have .*portable"):
        run(monkeypatch, "--variants", "other")


def test_the_example_of_the_page(monkeypatch, capsys):
    run(monkeypatch, "--kernel", f"{EXAMPLE}:conv2d_strided", "--only", "fwd")
    shown = capsys.readouterr().out
    assert f"checked: {EXAMPLE}:conv2d_strided is conv2d, with an error of at most" in shown
    assert [line for line in shown.splitlines() if line.startswith("  conv2d_strided ")]


def test_a_wrong_kernel_is_not_timed(monkeypatch, tmp_path, capsys):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(EXAMPLE.read_text().replace("row * sh", "row"))
    with pytest.raises(ArgumentError, match=r"wrong.py:conv2d_strided for float32 \(1, 8, 6, 5\).* is wrong"):
        run(monkeypatch, "--kernel", f"{wrong}:conv2d_strided")
    assert "GFLOP/s  " not in capsys.readouterr().out


def test_a_wrong_contender_stops_the_run(monkeypatch):
    monkeypatch.setattr(bench_conv, "reference", lambda what, *operands: [np.zeros((1, 4, 4, 512))])
    with pytest.raises(ArgumentError, match=r"conv2d of PyTorch NCHW for layer4\.0\.downsample.* is wrong"):
        run(monkeypatch, "--only", "fwd")
