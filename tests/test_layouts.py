"""The order of weights' elements in files and nets: told, known or refused, and never guessed."""

from __future__ import annotations

import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from minires import checkpoint, models, nn, weights
from minires.errors import ArgumentError, CheckpointError
from minires.nn.layout import ambiguous
from tests.oracle import torch
from tests.test_weights import bits


def test_an_older_checkpoint_that_names_no_layouts(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Linear(3, 3))
    arrays = {f"model/{name}": value.data for name, value in model.state_dict().items()}
    checkpoint.save_tensors(tmp_path / "old", arrays, {"info": {}, "layout": "HWIO"})
    assert bits(weights.read(tmp_path / "old").tensors) == bits(model.state_dict("OIHW"))


def test_a_layout_is_never_guessed(tmp_path):
    hwio = np.arange(81, dtype=np.float32).reshape(3, 3, 3, 3)
    save_file({"weight": hwio}, tmp_path / "theirs.safetensors")
    np.savez(tmp_path / "theirs.npz", weight=hwio)
    save_file({"weight": hwio}, tmp_path / "torchs.safetensors", {"format": "pt", "info": "no checkpoint"})
    for name in ("theirs.safetensors", "theirs.npz"):
        with pytest.raises(CheckpointError, match=f"{name} does not say the layout .* pass layout='OIHW' if"):
            weights.read(tmp_path / name)
        assert weights.read(tmp_path / name, "OIHW").tensors["weight"].tolist() == hwio.tolist()
        assert weights.read(tmp_path / name, "HWIO").tensors["weight"].tolist() == hwio.transpose(3, 2, 0, 1).tolist()
    assert weights.read(tmp_path / "torchs.safetensors").tensors["weight"].tolist() == hwio.tolist()
    with pytest.raises(CheckpointError, match=r"torchs.safetensors says the layout of its weights itself"):
        weights.read(tmp_path / "torchs.safetensors", "HWIO")
    with pytest.raises(ArgumentError, match="layout must be 'OIHW'"):
        weights.read(tmp_path / "theirs.npz", "NCHW")
    for name in ("theirs.safetensors", "torchs.safetensors"):  # what a file says, one may say, too
        assert weights.read(tmp_path / name, "OIHW").tensors["weight"].tolist() == hwio.tolist()
    checkpoint.save(tmp_path / "ours", nn.Sequential(nn.Conv2d(3, 3, 3), nn.Linear(3, 3)))
    assert bits(weights.read(tmp_path / "ours", "HWIO").tensors) == bits(weights.read(tmp_path / "ours").tensors)
    with pytest.raises(CheckpointError, match="ours says the layout"):
        weights.read(tmp_path / "ours", "OIHW")


def test_kernels_of_dense_layers_are_never_guessed(tmp_path):
    """Keras and Flax have them (I, O): a square one would be loaded without a word."""
    dense = np.arange(9, dtype=np.float32).reshape(3, 3)
    np.savez(tmp_path / "flax.npz", bias=dense[0], conv=np.zeros((1, 1, 3, 3)), dense=dense)
    with pytest.raises(CheckpointError, match=r"flax\.npz: 'dense' has two axes, .* transpose .*load_state_dict"):
        weights.read(tmp_path / "flax.npz", "HWIO")
    for suffix in ("npz", "safetensors"):
        np.savez(tmp_path / "x.npz", dense=dense)
        save_file({"dense": dense}, tmp_path / "x.safetensors", {"layout": "HWIO"})
        with pytest.raises(CheckpointError, match="does not say the layout"):
            weights.read(tmp_path / f"x.{suffix}")
        with pytest.raises(CheckpointError, match="has two axes"):
            weights.read(tmp_path / f"x.{suffix}", "HWIO")
        assert weights.read(tmp_path / f"x.{suffix}", "OIHW").tensors["dense"].tolist() == dense.tolist()


def test_a_flattened_map_of_unknown_size_is_refused(tmp_path):
    def unsized(**size):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 5, 2, **size))

    remedy = r"'2' takes 120 inputs, which may be a flattened map: .* give that Linear image_size=\(H, W\)"
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 5, 2))
    model = unsized()
    before = bits(model.state_dict())
    with pytest.raises(CheckpointError, match=remedy):
        model.load_state_dict(theirs.state_dict(), layout="OIHW")
    assert bits(model.state_dict()) == before
    with pytest.raises(CheckpointError, match=remedy):
        weights.save(tmp_path / "x.pth", model)
    unsized(image_size=(6, 5)).load_state_dict(theirs.state_dict(), layout="OIHW")
    apart = unsized(image_size=1)
    apart.load_state_dict(theirs.state_dict(), layout="OIHW")
    assert bits(apart.state_dict("OIHW")) == bits(theirs.state_dict())
    assert apart[2].weight.data.tobytes() == theirs[2].weight.detach().numpy().tobytes()
    with pytest.raises(ArgumentError, match=r"in_features=120 are no whole number of channels of a map of \(7, 5\)"):
        unsized(image_size=(7, 5))
    assert "image_size=(6, 5)" in repr(unsized(image_size=(6, 5)))


class Parts(nn.Module):
    """Modules under names, in this order."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


AMBIGUOUS = {
    "two heads on one map": (
        {"conv": nn.Conv2d(3, 4, 3), "mu": nn.Linear(36, 2), "logvar": nn.Linear(36, 2)}, {"mu", "logvar"},
    ),
    "and a decoder": (
        {"conv": nn.Conv2d(3, 4, 3), "mu": nn.Linear(36, 2), "logvar": nn.Linear(36, 2), "back": nn.Linear(2, 36)},
        {"mu", "logvar"},
    ),
    "fc before conv": ({"fc": nn.Linear(36, 2), "conv": nn.Conv2d(3, 4, 3)}, {"fc"}),
    "1x1 convolution between": (
        {"conv": nn.Conv2d(3, 4, 3), "side": nn.Conv2d(4, 5, 1), "fc": nn.Linear(36, 2)}, {"fc"},
    ),
    "square": ({"conv": nn.Conv2d(3, 4, 3), "fc": nn.Linear(36, 36), "out": nn.Linear(36, 2)}, {"fc"}),
    "told": ({"conv": nn.Conv2d(3, 4, 3), "fc": nn.Linear(36, 2, image_size=3)}, set()),
    "pooled": ({"conv": nn.Conv2d(3, 4, 3), "next": nn.Conv2d(4, 8, 3), "fc": nn.Linear(8, 2)}, set()),
    "squeeze and excitation": ({"conv": nn.Conv2d(1, 8, 3), "a": nn.Linear(8, 4), "b": nn.Linear(4, 8)}, set()),
    "a head of two layers": ({"conv": nn.Conv2d(3, 4, 3), "a": nn.Linear(4, 16), "b": nn.Linear(16, 2)}, set()),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "expected"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_which_linears_may_follow_a_map(parts, expected):
    assert set(ambiguous(Parts(**parts).named_modules())) == {f"{name}.weight" for name in expected}


def test_no_model_of_ours_is_ambiguous():
    for name in ("resnet18", "resnet50", "resnet20", "plain20", "preact_resnet20", "keras_resnet34"):
        assert not ambiguous(models.build(name, generator=np.random.default_rng(0)).named_modules()), name


def test_a_checkpoint_of_a_net_whose_map_is_unknown(tmp_path):
    """It goes back into the net, whose order it has, but to no file in PyTorch's order."""
    ours = Parts(conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(36, 2))
    checkpoint.save(tmp_path / "ours", ours)
    other = Parts(conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(36, 2))
    assert weights.load(tmp_path / "ours", other) == ([], [])
    assert bits(other.state_dict()) == bits(ours.state_dict())
    told = r"ours: 'fc.weight' may follow a flattened map, .* give that Linear image_size"
    with pytest.raises(CheckpointError, match=told):
        weights.read(tmp_path / "ours")
    with pytest.raises(CheckpointError, match=told):
        weights.convert(tmp_path / "ours", tmp_path / "x.pth")
    assert os.listdir(tmp_path) == ["ours"]
    conv = {"conv.weight": np.ones((4, 3, 3, 3), np.float32)}  # the backbone alone has an order
    assert other.load_state_dict(conv, strict=False, layout="OIHW").unexpected_keys == []
    assert other.conv.weight.data.min() == 1
